//! (module io)
