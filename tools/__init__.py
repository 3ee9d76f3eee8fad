"""What make runs beside the packages: the installation, and the diagram of the documentation."""
