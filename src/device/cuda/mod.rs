//! NVIDIA GPUs: a [`Place`](super::gpu::Place) by the driver's calls.
//!
//! The kernels travel inside the program as one fat binary (code for compute capability 8.0 and 9.0, PTX for later
//! ones). No library of the driver is linked: where there is none, [`Gpu::open`] says
//! [`DeviceError::NoDevice`](super::gpu::DeviceError::NoDevice) and everything else of the program works.
//!
//! Everything of one [`Gpu`] happens in order, on one stream. A kernel sees memory of the device alone, and all that
//! lies there are plain numbers, of which any bits are valid: a wrong kernel makes wrong numbers or a device error,
//! never undefined behaviour of the program. So launches are safe functions; what the driver reads of ours, the
//! parameters, is checked against each kernel's own.

mod driver;

pub use driver::Gpu;
