//! (module comm)
