unsafe extern "C" {
    /// Sets the number of threads of the OpenBLAS library in this process (OpenBLAS `cblas.h`).
    fn openblas_set_num_threads(n: std::ffi::c_int);
}

/// Keeps OpenBLAS single-threaded: worker slots are the parallel axis, and a product split over
/// threads would sum in an order that depends on their number.
pub fn use_one_blas_thread() {
    // SAFETY: the function takes a plain integer, may be called at any time, and holds its own lock.
    unsafe { openblas_set_num_threads(1) }
}
