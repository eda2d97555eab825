//! The driver's calls, and the unsafe code among them.

use std::ffi::c_void;
use std::marker::PhantomData;

use cust::context::{Context, CurrentContext};
use cust::device::{Device, DeviceAttribute};
use cust::error::CudaError;
use cust::memory::{CopyDestination, DeviceBuffer, DeviceCopy};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use cust::sys;

use super::{GpuError, GpuInfo, Kernel, OLDEST, Parameter, ordinal_of};
use crate::device::SharedMemory;
use crate::num::Real;

/// The kernels for all processors.
static FATBIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// Plain numbers that arrays on a device are made of.
pub trait DeviceNumber: DeviceCopy + cust::memory::bytemuck::Zeroable + Default {}

impl DeviceNumber for f32 {}
impl DeviceNumber for f64 {}
impl DeviceNumber for u32 {}

/// One device with the kernels loaded. It is used by the thread that opened it.
pub struct Gpu {
    // Fields are dropped in this order: what belongs to the context goes before it.
    stream: Stream,
    module: Module,
    context: Context,
    info: GpuInfo,
    /// The driver's current context is a thread's own.
    one_thread: PhantomData<*const ()>,
}

/// An array of numbers on a device.
pub struct Buffer<'g, T: DeviceNumber> {
    numbers: DeviceBuffer<T>,
    gpu: PhantomData<&'g Gpu>,
}

fn failed(doing: &'static str) -> impl Fn(CudaError) -> GpuError {
    move |reason| match reason {
        CudaError::NoDevice => GpuError::NoDevice,
        reason => GpuError::Driver { doing, reason },
    }
}

/// Number of visible devices.
fn count() -> Result<u32, GpuError> {
    cust::init(cust::CudaFlags::empty()).map_err(failed("start"))?;
    Device::num_devices().map_err(failed("count devices"))
}

/// Bytes of shared memory that a block may have when it asks for them.
fn shared_of_a_block(device: Device) -> Result<usize, GpuError> {
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    let mut bytes = 0;
    // SAFETY: the call writes one int through a pointer to one int.
    let code = unsafe { sys::cuDeviceGetAttribute(&raw mut bytes, attribute, device.as_raw()) };
    if code == sys::cudaError_enum::CUDA_SUCCESS && bytes > 0 {
        Ok(bytes as usize)
    } else {
        Err(GpuError::Driver { doing: "tell the shared memory of a block", reason: CudaError::InvalidValue })
    }
}

fn describe(ordinal: u32) -> Result<(Device, GpuInfo), GpuError> {
    let device = Device::get_device(ordinal).map_err(failed("find the device"))?;
    let attribute = |a| device.get_attribute(a).map_err(failed("describe the device"));
    let bus = format!(
        "{:04x}:{:02x}:{:02x}.0",
        attribute(DeviceAttribute::PciDomainId)?,
        attribute(DeviceAttribute::PciBusId)?,
        attribute(DeviceAttribute::PciDeviceId)?
    );
    let capability = (
        attribute(DeviceAttribute::ComputeCapabilityMajor)?,
        attribute(DeviceAttribute::ComputeCapabilityMinor)?,
    );
    let shared = SharedMemory {
        block: shared_of_a_block(device)?,
        multiprocessor: attribute(DeviceAttribute::MaxSharedMemoryPerMultiprocessor)? as usize,
    };
    let name = device.name().map_err(failed("name the device"))?;
    let memory = device.total_memory().map_err(failed("tell the device's memory"))?;
    Ok((device, GpuInfo { ordinal, name, memory, capability, bus, shared }))
}

impl Gpu {
    /// All visible devices.
    pub fn list() -> Result<Vec<GpuInfo>, GpuError> {
        (0..count()?).map(|ordinal| describe(ordinal).map(|(_, info)| info)).collect()
    }

    /// Opens the device of a rank: its number among the ranks of its node, modulo the visible devices.
    pub fn open(node_local_rank: usize) -> Result<Self, GpuError> {
        let ordinal = ordinal_of(node_local_rank, count()?).ok_or(GpuError::NoDevice)?;
        let (device, info) = describe(ordinal)?;
        if info.capability < OLDEST {
            return Err(GpuError::TooOld { name: info.name, capability: info.capability });
        }
        let context = Context::new(device).map_err(failed("open the device"))?;
        let module = Module::from_fatbin(FATBIN, &[]).map_err(failed("load the kernels"))?;
        // Copies and this stream wait for each other: everything is in order.
        let stream = Stream::new(StreamFlags::DEFAULT, None).map_err(failed("make a stream"))?;
        Ok(Self { stream, module, context, info, one_thread: PhantomData })
    }

    /// What the device says of itself.
    pub fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// Another device may have been opened since by the same thread.
    fn enter(&self) -> Result<(), GpuError> {
        CurrentContext::set_current(&self.context).map_err(failed("enter the device"))
    }

    /// An array of zeros.
    pub fn zeros<T: DeviceNumber>(&self, len: usize) -> Result<Buffer<'_, T>, GpuError> {
        self.enter()?;
        let numbers = DeviceBuffer::zeroed(len.max(1)).map_err(|reason| match reason {
            CudaError::OutOfMemory => GpuError::OutOfMemory { bytes: len * size_of::<T>() },
            reason => failed("make an array")(reason),
        })?;
        Ok(Buffer { numbers, gpu: PhantomData })
    }

    /// A copy of an array of the host's.
    pub fn upload<T: DeviceNumber>(&self, from: &[T]) -> Result<Buffer<'_, T>, GpuError> {
        let mut buffer = self.zeros(from.len())?;
        self.write(&mut buffer, from)?;
        Ok(buffer)
    }

    /// Overwrites the front of a buffer.
    pub fn write<T: DeviceNumber>(&self, buffer: &mut Buffer<'_, T>, from: &[T]) -> Result<(), GpuError> {
        self.enter()?;
        if from.len() > buffer.len() {
            return Err(GpuError::Length {
                what: "copy to the device",
                expected: buffer.len(),
                given: from.len(),
            });
        }
        if from.is_empty() {
            return Ok(());
        }
        buffer.numbers.index(..from.len()).copy_from(from).map_err(failed("copy to the device"))
    }

    /// The front of a buffer, when all that was launched before is done.
    pub fn read<T: DeviceNumber>(&self, buffer: &Buffer<'_, T>, to: &mut [T]) -> Result<(), GpuError> {
        self.synchronize()?;
        if to.len() > buffer.len() {
            return Err(GpuError::Length {
                what: "copy from the device",
                expected: buffer.len(),
                given: to.len(),
            });
        }
        if to.is_empty() {
            return Ok(());
        }
        buffer.numbers.index(..to.len()).copy_to(to).map_err(failed("copy from the device"))
    }

    /// Waits until all that was launched is done; errors of kernels show here.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        self.enter()?;
        self.stream.synchronize().map_err(failed("finish a kernel"))
    }

    /// Launches the `T` version of a kernel on a grid of `(x, y)` blocks.
    pub fn launch<T: Real>(
        &self,
        kernel: Kernel,
        (x, y): (usize, usize),
        threads: usize,
        shared_bytes: usize,
        parameters: &[Parameter],
    ) -> Result<(), GpuError> {
        let name = format!("{}_{}", kernel.name(), T::NAME);
        let given: Vec<usize> = parameters.iter().map(Parameter::len).collect();
        if given != kernel.parameters() {
            return Err(GpuError::Parameters { kernel: name, expected: kernel.parameters().to_vec(), given });
        }
        self.enter()?;
        let function = self.module.get_function(&name).map_err(failed("find a kernel"))?;
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: `function` is a handle of the module, which outlives this call; the call takes numbers alone.
        let code = unsafe { sys::cuFuncSetAttribute(function.to_raw(), attribute, shared_bytes as i32) };
        if code != sys::cudaError_enum::CUDA_SUCCESS {
            return Err(GpuError::Driver {
                doing: "give a kernel its shared memory",
                reason: CudaError::InvalidValue,
            });
        }
        let words: Vec<Vec<u64>> = parameters.iter().map(Parameter::words).collect();
        let addresses: Vec<*mut c_void> = words.iter().map(|w| w.as_ptr().cast_mut().cast()).collect();
        let grid = cust::function::GridSize::xy(x as u32, y as u32);
        // SAFETY: the driver reads one address a parameter and so many bytes behind each as the kernel declares, before
        // the call returns; their numbers were compared above. What the kernel does then it does to the device's memory,
        // where all bits are valid (see the module).
        unsafe { self.stream.launch(&function, grid, threads as u32, shared_bytes as u32, &addresses) }
            .map_err(failed("launch a kernel"))
    }
}

impl<T: DeviceNumber> Buffer<'_, T> {
    /// Numbers that it holds.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Never: an array of nothing has room for one.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Where it lies in the device's memory.
    pub(super) fn address(&self) -> u64 {
        self.numbers.as_device_ptr().as_raw()
    }
}
