/* A guard against SIGBUS, which ends a process that reads a page of a mapped file beyond its end, or on a bad disk. */

#ifndef SRSHARDS_GUARD_H
#define SRSHARDS_GUARD_H

#include <setjmp.h>

/* Installs the handler of SIGBUS unless it is in place. Signals without a guard go to the handler that was there. */
void srs_install_guard(void);

/* Where this thread goes on after SIGBUS; NULL: it has no guard. */
void srs_set_guard(sigjmp_buf *guard);

#endif
