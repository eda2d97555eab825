//! (module diagnostics)
