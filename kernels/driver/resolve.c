/* Finds functions of the CUDA driver for trampolines.S. Two threads that resolve the same slot at once write the same
 * address into it. */
#include <dlfcn.h>
#include <stddef.h>

static const char *const names[] = {
#include "names.inc"
};

void *lambda_hat_cuda_table[sizeof names / sizeof *names];

void *lambda_hat_cuda_resolve(unsigned index) {
    /* dlopen of what is open already counts a use and returns the same handle. */
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    void *found = driver == NULL ? NULL : dlsym(driver, names[index]);
    if (found != NULL) __atomic_store_n(&lambda_hat_cuda_table[index], found, __ATOMIC_RELEASE);
    return found;
}
