"""Fault injection: provoke every fault that can happen on a machine, count the outcomes and compare the results."""
