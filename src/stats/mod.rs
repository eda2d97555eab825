//! (module stats)
