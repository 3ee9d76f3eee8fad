/* A guard against SIGBUS, which ends a process that reads a page of a mapped file beyond its end, or on a bad disk. */

#ifndef SRSHARDS_GUARD_H
#define SRSHARDS_GUARD_H

/* Calls `work` with `arguments`, and returns whether it read all its memory. If a page cannot be read, it is abandoned
   where it is: it must not hold anything that has to be released. Signals of other memory go to the handler that was
   there before. */
int srs_guarded(void (*work)(void *), void *arguments);

#endif
