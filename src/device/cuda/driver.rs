//! The driver's calls, and the unsafe code among them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::marker::PhantomData;

use cust::context::{Context, CurrentContext};
use cust::device::{Device, DeviceAttribute};
use cust::error::CudaError;
use cust::memory::{CopyDestination, DeviceBuffer};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use cust::sys;

use crate::device::SharedMemory;
use crate::device::gpu::{DeviceError, DeviceInfo, Launch, OLDEST, Parameter, Place, ordinal_of};

/// The kernels for all processors.
static FATBIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// One device with the kernels loaded. It is used by the thread that opened it.
pub struct Gpu {
    // Fields are dropped in this order: what belongs to the context goes before it.
    memory: RefCell<HashMap<u64, DeviceBuffer<u8>>>,
    stream: Stream,
    module: Module,
    context: Context,
    info: DeviceInfo,
    /// The driver's current context is a thread's own.
    one_thread: PhantomData<*const ()>,
}

fn failed(doing: &'static str) -> impl Fn(CudaError) -> DeviceError {
    move |reason| match reason {
        CudaError::NoDevice => DeviceError::NoDevice,
        reason => DeviceError::Failed { doing, reason: reason.to_string() },
    }
}

/// Number of visible devices.
fn count() -> Result<u32, DeviceError> {
    cust::init(cust::CudaFlags::empty()).map_err(failed("start"))?;
    Device::num_devices().map_err(failed("count devices"))
}

/// Bytes of shared memory that a block may have when it asks for them.
fn shared_of_a_block(device: Device) -> Result<usize, DeviceError> {
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    let mut bytes = 0;
    // SAFETY: the call writes one int through a pointer to one int.
    let code = unsafe { sys::cuDeviceGetAttribute(&raw mut bytes, attribute, device.as_raw()) };
    if code == sys::cudaError_enum::CUDA_SUCCESS && bytes > 0 {
        Ok(bytes as usize)
    } else {
        Err(failed("tell the shared memory of a block")(CudaError::InvalidValue))
    }
}

fn describe(ordinal: u32) -> Result<(Device, DeviceInfo), DeviceError> {
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
    Ok((device, DeviceInfo { name, memory, capability, bus, shared, kind: "cuda" }))
}

impl Gpu {
    /// All visible devices.
    pub fn list() -> Result<Vec<DeviceInfo>, DeviceError> {
        (0..count()?).map(|ordinal| describe(ordinal).map(|(_, info)| info)).collect()
    }

    /// Opens the device of a rank: its number among the ranks of its node, modulo the visible devices.
    pub fn open(node_local_rank: usize) -> Result<Self, DeviceError> {
        let ordinal = ordinal_of(node_local_rank, count()?).ok_or(DeviceError::NoDevice)?;
        let (device, info) = describe(ordinal)?;
        if info.capability < OLDEST {
            return Err(DeviceError::TooOld { name: info.name, capability: info.capability });
        }
        let context = Context::new(device).map_err(failed("open the device"))?;
        let module = Module::from_fatbin(FATBIN, &[]).map_err(failed("load the kernels"))?;
        // Copies and this stream wait for each other: everything is in order.
        let stream = Stream::new(StreamFlags::DEFAULT, None).map_err(failed("make a stream"))?;
        Ok(Self { memory: RefCell::default(), stream, module, context, info, one_thread: PhantomData })
    }

    /// Another device may have been opened since by the same thread.
    fn enter(&self) -> Result<(), DeviceError> {
        CurrentContext::set_current(&self.context).map_err(failed("enter the device"))
    }
}

/// Whether so many bytes are within `held` of them.
fn within(what: &'static str, held: usize, given: usize) -> Result<(), DeviceError> {
    if given <= held { Ok(()) } else { Err(DeviceError::Length { what, expected: held, given }) }
}

impl Place for Gpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError> {
        self.enter()?;
        let memory = DeviceBuffer::<u8>::zeroed(bytes).map_err(|reason| match reason {
            CudaError::OutOfMemory => DeviceError::OutOfMemory { bytes },
            reason => failed("make an array")(reason),
        })?;
        let address = memory.as_device_ptr().as_raw();
        self.memory.borrow_mut().insert(address, memory);
        Ok(address)
    }

    fn free(&self, address: u64) {
        // Where the device is lost its memory is as well.
        if self.enter().is_ok() {
            self.memory.borrow_mut().remove(&address);
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.enter()?;
        let memory = self.memory.borrow();
        let held = memory.get(&address);
        within("copy to the device", held.map_or(0, |m| m.len()), bytes.len())?;
        match held {
            Some(held) if !bytes.is_empty() => {
                held.index(..bytes.len()).copy_from(bytes).map_err(failed("copy to the device"))
            }
            _ => Ok(()),
        }
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.enter()?;
        self.stream.synchronize().map_err(failed("finish a kernel"))?;
        let memory = self.memory.borrow();
        let held = memory.get(&address);
        within("copy from the device", held.map_or(0, |m| m.len()), bytes.len())?;
        match held {
            Some(held) if !bytes.is_empty() => {
                held.index(..bytes.len()).copy_to(bytes).map_err(failed("copy from the device"))
            }
            _ => Ok(()),
        }
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), DeviceError> {
        launch.check()?;
        let Launch { kernel, double, grid: (x, y), threads, shared_bytes, parameters } = *launch;
        self.enter()?;
        let name = format!("{}_{}", kernel.name(), if double { "f64" } else { "f32" });
        let function = self.module.get_function(&name).map_err(failed("find a kernel"))?;
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: `function` is a handle of the module, which outlives this call; the call takes numbers alone.
        let code = unsafe { sys::cuFuncSetAttribute(function.to_raw(), attribute, shared_bytes as i32) };
        if code != sys::cudaError_enum::CUDA_SUCCESS {
            return Err(failed("give a kernel its shared memory")(CudaError::InvalidValue));
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
