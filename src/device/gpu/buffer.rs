//! Arrays of numbers in a device's memory.

use std::marker::PhantomData;

use super::{DeviceError, Place};

/// Plain numbers that arrays on a device are made of.
pub trait Number: Copy + Default {
    /// Appends the bytes as they lie in memory.
    fn put(self, bytes: &mut Vec<u8>);
    /// Reads all of them back; `bytes` holds a whole number of numbers.
    fn take(bytes: &[u8], into: &mut [Self]);
}

macro_rules! number {
    ($t:ty) => {
        impl Number for $t {
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_ne_bytes());
            }
            fn take(bytes: &[u8], into: &mut [Self]) {
                for (to, from) in into.iter_mut().zip(bytes.as_chunks().0) {
                    *to = Self::from_ne_bytes(*from);
                }
            }
        }
    };
}

number!(f32);
number!(f64);
number!(u32);

/// An array of numbers on a device; given back when dropped.
pub struct Buffer<'p, T: Number> {
    place: &'p dyn Place,
    address: u64,
    len: usize,
    kind: PhantomData<T>,
}

impl<'p, T: Number> Buffer<'p, T> {
    /// An array of zeros.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], or the device failed.
    pub fn zeros(place: &'p dyn Place, len: usize) -> Result<Self, DeviceError> {
        let bytes = len.max(1).checked_mul(size_of::<T>());
        let bytes = bytes.ok_or(DeviceError::OutOfMemory { bytes: usize::MAX })?;
        let address = place.allocate(bytes)?;
        Ok(Self { place, address, len, kind: PhantomData })
    }

    /// A copy of an array of the host's.
    ///
    /// # Errors
    /// As [`zeros`](Self::zeros).
    pub fn of(place: &'p dyn Place, from: &[T]) -> Result<Self, DeviceError> {
        let mut buffer = Self::zeros(place, from.len())?;
        buffer.write(from)?;
        Ok(buffer)
    }

    /// Overwrites the front.
    ///
    /// # Errors
    /// More numbers than it holds, or the device failed.
    pub fn write(&mut self, from: &[T]) -> Result<(), DeviceError> {
        self.holds("copy to the device", from.len())?;
        let mut bytes = Vec::with_capacity(size_of_val(from));
        from.iter().for_each(|x| x.put(&mut bytes));
        self.place.write(self.address, &bytes)
    }

    /// Reads the front, once all that was launched before is done.
    ///
    /// # Errors
    /// More numbers than it holds, or a launch failed.
    pub fn read(&self, to: &mut [T]) -> Result<(), DeviceError> {
        self.holds("copy from the device", to.len())?;
        let mut bytes = vec![0; size_of_val(to)];
        self.place.read(self.address, &mut bytes)?;
        T::take(&bytes, to);
        Ok(())
    }

    /// The first `len` numbers, as [`read`](Self::read) has them.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn front(&self, len: usize) -> Result<Vec<T>, DeviceError> {
        let mut numbers = vec![T::default(); len];
        self.read(&mut numbers)?;
        Ok(numbers)
    }

    /// Whether so many numbers have room.
    ///
    /// # Errors
    /// [`DeviceError::Length`].
    pub fn holds(&self, what: &'static str, given: usize) -> Result<(), DeviceError> {
        if given <= self.len {
            return Ok(());
        }
        Err(DeviceError::Length { what, expected: self.len, given })
    }

    /// Numbers that it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where number `offset` of it lies in the device's memory.
    pub(super) fn address_of(&self, offset: usize) -> u64 {
        debug_assert!(offset <= self.len);
        self.address + (offset * size_of::<T>()) as u64
    }
}

impl<T: Number> Drop for Buffer<'_, T> {
    fn drop(&mut self) {
        self.place.free(self.address);
    }
}
