#define _XOPEN_SOURCE 700

#include "guard.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

/* Where a thread goes on; NULL: it has no guard. The handler may run in any thread, and must not allocate thread-local storage: it is allocated with the thread. */
static _Thread_local sigjmp_buf *volatile guard_of_thread __attribute__((tls_model("initial-exec")));

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction previous;
static volatile sig_atomic_t is_handed_over;

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    (void)context;
    sigjmp_buf *guard = guard_of_thread;
    if (guard != NULL && info->si_code > 0) { /* not sent by a process */
        guard_of_thread = NULL;
        siglongjmp(*guard, 1);
    }
    /* On return, the instruction is repeated and raises the signal again. A handler that then restores this one and
       raises the signal once more, as Python's faulthandler does, gets the default action. */
    struct sigaction next = previous;
    if (is_handed_over) {
        next.sa_handler = SIG_DFL;
        next.sa_flags = 0;
    }
    is_handed_over = 1;
    sigaction(number, &next, NULL);
    if (info->si_code <= 0)
        raise(number);
}

/* Installs the handler unless it is in place. */
static void install(void)
{
    struct sigaction current;
    if (sigaction(SIGBUS, NULL, &current) == 0 && (current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_sigbus)
        return;
    pthread_mutex_lock(&mutex);
    sigaction(SIGBUS, NULL, &current);
    if (!((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_sigbus)) {
        struct sigaction ours = {0};
        ours.sa_sigaction = on_sigbus;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigemptyset(&ours.sa_mask);
        previous = current;
        is_handed_over = 0;
        sigaction(SIGBUS, &ours, NULL);
    }
    pthread_mutex_unlock(&mutex);
}

int srs_guarded(void (*work)(void *), void *arguments)
{
    sigjmp_buf guard;
    install();
    if (sigsetjmp(guard, 1))
        return 0;
    guard_of_thread = &guard;
    work(arguments);
    guard_of_thread = NULL;
    return 1;
}
