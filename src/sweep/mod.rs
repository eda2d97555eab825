//! (module sweep)
