//! Studies: which settings of a method to try next, and what was learnt from those tried.
//!
//! Only [`conduct`] knows how a trial runs. A [`study::Study`] is a state machine that proposes and is told; a
//! proposal depends on its number and on what ended so many trials before it, never on who was faster.

pub mod conduct;
mod differences;
pub mod grid;
pub mod importance;
pub mod journal;
pub mod objective;
pub mod outputs;
pub mod pareto;
pub mod pruner;
pub mod reference;
pub mod space;
pub mod steps;
pub mod study;
pub mod tpe;
pub mod trial;
