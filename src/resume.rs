//! How long work is watched, saved on the way, and taken up again with the same bits.
//!
//! Work that may take long is a sequence of *stages*, each a pure function of what came before. A
//! [`Desk`] keeps the results of finished stages and the state of the one in progress: written out it
//! is a checkpoint, and work begun with a checkpoint walks through its finished stages without doing
//! them and goes on in the middle of the one that was cut off.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// How far a piece of work has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Iterations done.
    pub iteration: u64,
    /// Iterations in all.
    pub total: u64,
}

/// What whoever watches wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Hand over a checkpoint and go on.
    Save,
    /// Hand over a checkpoint and end.
    Stop,
}

/// Who watches a piece of work from outside.
pub trait Watch {
    /// Asked at every step; must cost next to nothing.
    fn flow(&mut self, progress: Progress) -> Flow;

    /// Takes a checkpoint.
    fn keep(&mut self, checkpoint: Vec<u8>);
}

/// Nobody watches.
struct Unwatched;

impl Watch for Unwatched {
    fn flow(&mut self, _: Progress) -> Flow {
        Flow::Continue
    }
    fn keep(&mut self, _: Vec<u8>) {}
}

/// The work was asked to stop, and its state was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted; the same command goes on from here")]
pub struct Stopped;

/// A state that does not serialise, or bytes that are no state: a defect, or another version's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the state of the work cannot be stored or read: {0}")]
pub struct StateError(#[from] postcard::Error);

/// Why work at a desk does not go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Interruption {
    /// As asked.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// By a state that cannot be stored.
    #[error(transparent)]
    State(#[from] StateError),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Saved {
    /// Results of finished stages, in order.
    done: Vec<ByteBuf>,
    /// State of the stage in progress.
    #[serde(with = "serde_bytes")]
    part: Option<Vec<u8>>,
}

/// Where a piece of work keeps what it has done.
pub struct Desk<'a> {
    watch: Box<dyn Watch + 'a>,
    saved: Saved,
    /// Stages walked through.
    stage: usize,
}

impl Desk<'static> {
    /// A desk that no one watches.
    pub fn unwatched() -> Self {
        Desk { watch: Box::new(Unwatched), saved: Saved::default(), stage: 0 }
    }
}

impl<'a> Desk<'a> {
    /// A desk that `watch` looks at, with the checkpoint to go on from, if there is one.
    ///
    /// # Errors
    /// The bytes are no checkpoint.
    pub fn new(watch: impl Watch + 'a, checkpoint: Option<&[u8]>) -> Result<Self, StateError> {
        let saved = checkpoint.map(postcard::from_bytes).transpose()?.unwrap_or_default();
        Ok(Desk { watch: Box::new(watch), saved, stage: 0 })
    }

    /// The result of the next stage: what the checkpoint has of it, else what `work` makes. Stages do
    /// not contain stages.
    pub fn stage<R, E>(&mut self, work: impl FnOnce(&mut Self) -> Result<R, E>) -> Result<R, E>
    where
        R: Serialize + DeserializeOwned,
        E: From<Interruption>,
    {
        let told = |e: postcard::Error| E::from(StateError(e).into());
        if let Some(done) = self.saved.done.get(self.stage) {
            self.stage += 1;
            return postcard::from_bytes(done).map_err(told);
        }
        let result = work(self)?;
        self.saved.part = None;
        self.saved.done.push(postcard::to_stdvec(&result).map_err(told)?.into());
        self.stage += 1;
        self.look(Progress::default())?;
        Ok(result)
    }

    /// The state in which the stage in progress was cut off, if it was.
    pub fn part<S: DeserializeOwned>(&mut self) -> Result<Option<S>, Interruption> {
        // What is left of finished stages is not this stage's.
        if self.stage < self.saved.done.len() {
            return Ok(None);
        }
        Ok(self.saved.part.take().map(|part| postcard::from_bytes(&part)).transpose().map_err(StateError)?)
    }

    /// Looks up from the work, which stands at `state`: hands over a checkpoint where one is wanted.
    ///
    /// # Errors
    /// [`Stopped`] where the work is to end.
    pub fn pulse<S: Serialize>(&mut self, progress: Progress, state: &S) -> Result<(), Interruption> {
        self.pulse_with(progress, || Ok(postcard::to_stdvec(state).map_err(StateError)?))
    }

    /// [`pulse`](Self::pulse) with a state that is fetched only where a checkpoint is wanted: `fetch` gives its bytes,
    /// in postcard's form.
    ///
    /// # Errors
    /// Those of `fetch`, and [`Stopped`] where the work is to end.
    pub fn pulse_with<E: From<Interruption>>(
        &mut self,
        progress: Progress,
        fetch: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        let flow = self.watch.flow(progress);
        if flow == Flow::Continue {
            return Ok(());
        }
        self.saved.part = Some(fetch()?);
        let kept = self.hand_over(flow);
        self.saved.part = None;
        Ok(kept?)
    }

    /// Puts the work down at `state`: the checkpoint from which another desk goes on.
    ///
    /// # Errors
    /// The state does not serialise.
    pub fn put_down<S: Serialize>(&mut self, state: &S) -> Result<Vec<u8>, StateError> {
        self.saved.part = Some(postcard::to_stdvec(state)?);
        let checkpoint = postcard::to_stdvec(&self.saved);
        self.saved.part = None;
        Ok(checkpoint?)
    }

    /// Looks up between two stages.
    fn look(&mut self, progress: Progress) -> Result<(), Interruption> {
        match self.watch.flow(progress) {
            Flow::Continue => Ok(()),
            flow => self.hand_over(flow),
        }
    }

    fn hand_over(&mut self, flow: Flow) -> Result<(), Interruption> {
        let checkpoint = postcard::to_stdvec(&self.saved).map_err(StateError)?;
        self.watch.keep(checkpoint);
        if flow == Flow::Stop { Err(Stopped.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Stops at the n-th look.
    struct StopAt<'a> {
        looks: usize,
        kept: &'a RefCell<Vec<u8>>,
    }

    impl Watch for StopAt<'_> {
        fn flow(&mut self, _: Progress) -> Flow {
            self.looks = self.looks.saturating_sub(1);
            if self.looks == 0 { Flow::Stop } else { Flow::Continue }
        }
        fn keep(&mut self, checkpoint: Vec<u8>) {
            *self.kept.borrow_mut() = checkpoint;
        }
    }

    /// Three stages, the second a loop; `steps` counts what was really done.
    fn work(desk: &mut Desk<'_>, steps: &mut Vec<u32>) -> Result<u64, Interruption> {
        let first: u64 = desk.stage(|_| {
            steps.push(100);
            Ok::<_, Interruption>(3)
        })?;
        let second: u64 = desk.stage(|desk| {
            let (mut i, mut sum) = desk.part::<(u32, u64)>()?.unwrap_or((0, first));
            while i < 5 {
                steps.push(i);
                sum = 7 * sum + u64::from(i);
                i += 1;
                desk.pulse(Progress { iteration: i.into(), total: 5 }, &(i, sum))?;
            }
            Ok::<_, Interruption>(sum)
        })?;
        desk.stage(|_| {
            steps.push(200);
            Ok(second + 1)
        })
    }

    #[test]
    fn work_cut_off_anywhere_goes_on_where_it_was() {
        let mut whole = Vec::new();
        let expected = work(&mut Desk::unwatched(), &mut whole).unwrap();
        for looks in 1..=8 {
            let kept = RefCell::new(Vec::new());
            let mut steps = Vec::new();
            let watch = StopAt { looks, kept: &kept };
            let cut = work(&mut Desk::new(watch, None).unwrap(), &mut steps);
            assert_eq!(cut, Err(Stopped.into()), "{looks}");
            let checkpoint = kept.take();
            let watch = StopAt { looks: usize::MAX, kept: &kept };
            let again = work(&mut Desk::new(watch, Some(&checkpoint)).unwrap(), &mut steps);
            assert_eq!(again, Ok(expected), "{looks}");
            // Nothing is done twice.
            assert_eq!(steps, whole, "{looks}");
        }
    }

    #[test]
    fn bytes_that_are_no_checkpoint_are_refused() {
        assert!(Desk::new(Unwatched, Some(&[0xff; 11])).is_err());
    }
}
