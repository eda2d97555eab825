//! The few HDF5 calls that the safe crate does not wrap: NUL-terminated string attributes and
//! files as images in memory. The only `unsafe` code of `io`.
//!
//! Every call runs inside [`hdf5::sync::sync`], the crate's one lock (it can be taken again by
//! the thread that holds it): libhdf5 is not thread-safe. The crate also keeps libhdf5 from
//! printing its error stack, once a thread, whenever the lock is taken.

use std::ffi::{CStr, c_void};
use std::ptr;

use hdf5::file::{FileAccessBuilder, FileCloseDegree};
use hdf5::{Error, File, Location};
use hdf5_sys::h5::herr_t;
use hdf5_sys::h5a::{H5Aclose, H5Acreate2, H5Awrite};
use hdf5_sys::h5f::{H5F_ACC_RDONLY, H5Fget_file_image, H5Fopen};
use hdf5_sys::h5fd::{H5FD_file_image_callbacks_t, H5FD_file_image_op_t};
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::{H5P_DEFAULT, H5Pset_file_image, H5Pset_file_image_callbacks};
use hdf5_sys::h5s::{H5S_class_t, H5Sclose, H5Screate};
use hdf5_sys::h5t::{H5T_C_S1, H5T_str_t, H5Tclose, H5Tcopy, H5Tset_size, H5Tset_strpad};
use hdf5_sys::h5t::{H5T_cset_t, H5Tset_cset};

use super::IoError;

/// Name under which files in memory are opened; nothing of that name is ever created.
pub(super) const IN_MEMORY: &str = "<memory>";

/// An identifier from libhdf5 that is given back when dropped.
struct Id(hid_t, unsafe extern "C" fn(hid_t) -> herr_t);

impl Drop for Id {
    fn drop(&mut self) {
        // SAFETY: the identifier is open (see `own`), is closed nowhere else, and belongs to the
        // kind that this closing function is for.
        unsafe { (self.1)(self.0) };
    }
}

/// The error that libhdf5 has just recorded.
fn last_error() -> Error {
    Error::query().unwrap_or_else(|e| e)
}

/// Takes charge of an identifier just made, whose closing function is `close`.
fn own(id: hid_t, close: unsafe extern "C" fn(hid_t) -> herr_t) -> Result<Id, Error> {
    if id < 0 { Err(last_error()) } else { Ok(Id(id, close)) }
}

fn done(status: herr_t) -> Result<(), Error> {
    if status < 0 { Err(last_error()) } else { Ok(()) }
}

/// Adds a scalar string attribute of fixed length with its terminating NUL.
///
/// The dimension-scale attributes `CLASS` and `NAME` must be of this kind (HDF5 Dimension Scale
/// specification; NetCDF-4 and `H5DSis_scale` look for it), while the safe crate writes
/// NUL-padded strings only.
///
/// # Errors
/// Whatever libhdf5 objects to, such as an attribute that is there already.
pub(super) fn write_terminated(place: &Location, name: &CStr, text: &CStr) -> Result<(), Error> {
    hdf5::sync::sync(|| {
        // SAFETY: under the library's lock. `place` is an open object for as long as it is
        // borrowed; `name` and `text` are NUL-terminated and outlive the calls; `text` has exactly
        // as many bytes as the string type is made long; the identifiers that are used are those
        // just made, checked by `own`, and closed once, by `Id`, in reverse order.
        unsafe {
            let kind = own(H5Tcopy(*H5T_C_S1), H5Tclose)?;
            done(H5Tset_size(kind.0, text.to_bytes_with_nul().len()))?;
            done(H5Tset_strpad(kind.0, H5T_str_t::H5T_STR_NULLTERM))?;
            done(H5Tset_cset(kind.0, H5T_cset_t::H5T_CSET_ASCII))?;
            let space = own(H5Screate(H5S_class_t::H5S_SCALAR), H5Sclose)?;
            let attribute = own(
                H5Acreate2(place.id(), name.as_ptr(), kind.0, space.0, H5P_DEFAULT, H5P_DEFAULT),
                H5Aclose,
            )?;
            done(H5Awrite(attribute.0, kind.0, text.as_ptr().cast()))
        }
    })
}

/// The whole file as bytes, as it would lie on disk.
pub(super) fn file_image(file: &File) -> Result<Vec<u8>, Error> {
    hdf5::sync::sync(|| {
        file.flush()?;
        // SAFETY: under the library's lock, on an open file; a null buffer of length 0 asks for
        // the size only (HDF5 reference, H5Fget_file_image).
        let size = unsafe { H5Fget_file_image(file.id(), ptr::null_mut(), 0) };
        let mut image = vec![0u8; usize::try_from(size).map_err(|_| last_error())?];
        // SAFETY: as above; `image` has room for the `image.len()` bytes that the call may write.
        let written = unsafe { H5Fget_file_image(file.id(), image.as_mut_ptr().cast(), image.len()) };
        if written == size { Ok(image) } else { Err(last_error()) }
    })
}

/// What `f` makes of a file whose bytes are given, open for reading; nothing touches a disk, and nothing
/// is copied. `f` must keep nothing of the file.
///
/// libhdf5 is not built to withstand hostile files: only bytes of our own writing, whose hash has
/// been checked, belong here.
///
/// # Errors
/// [`IoError::Hdf5`] for bytes that are no HDF5 file, and whatever `f` objects to.
pub(super) fn with_image<T>(bytes: &[u8], f: impl FnOnce(&File) -> Result<T, IoError>) -> Result<T, IoError> {
    hdf5::sync::sync(|| {
        let start: *mut c_void = bytes.as_ptr().cast_mut().cast();
        let mut span = Span { start, len: bytes.len() };
        let mut access = FileAccessBuilder::new();
        // Strong: nothing of the file stays open behind it.
        access.core_filebacked(false).fclose_degree(FileCloseDegree::Strong);
        let access = access.finish()?;
        let mut callbacks = H5FD_file_image_callbacks_t {
            image_malloc: Some(lend),
            image_memcpy: Some(leave),
            image_realloc: Some(refuse),
            image_free: Some(keep),
            udata_copy: Some(share),
            udata_free: Some(keep_span),
            udata: (&raw mut span).cast(),
        };
        // SAFETY: under the library's lock until the file is closed. `access` is an open file-access list.
        // libhdf5 asks the callbacks for each copy of the image that it wants and is lent the bytes
        // themselves, of which it reads `bytes.len()`, and does not write to them, since the file is open
        // for reading only. `span` and `bytes` outlive `file` and `access`, which are dropped before them.
        // The name is NUL-terminated and static. `from_id` gets the only reference to an identifier just
        // made, and checks it.
        let file: File = unsafe {
            done(H5Pset_file_image_callbacks(access.id(), &mut callbacks))?;
            done(H5Pset_file_image(access.id(), start, bytes.len()))?;
            let id = H5Fopen(c"<memory>".as_ptr(), H5F_ACC_RDONLY, access.id());
            if id < 0 { Err(last_error()) } else { hdf5::from_id(id) }
        }?;
        f(&file)
    })
}

/// Where the bytes of an image lie, for the callbacks of [`with_image`] (HDF5 reference,
/// H5Pset_file_image_callbacks): libhdf5 calls them with the address of one, for as long as it lives.
struct Span {
    start: *mut c_void,
    len: usize,
}

/// For a copy of the image: the image. Null, which fails, for anything larger.
extern "C" fn lend(size: usize, _: H5FD_file_image_op_t, span: *mut c_void) -> *mut c_void {
    // SAFETY: see `Span`; nothing else looks at it meanwhile.
    let span = unsafe { &*span.cast::<Span>() };
    if size <= span.len { span.start } else { ptr::null_mut() }
}

/// Copies nothing: both places are the image.
extern "C" fn leave(
    to: *mut c_void,
    from: *const c_void,
    _: usize,
    _: H5FD_file_image_op_t,
    _: *mut c_void,
) -> *mut c_void {
    if ptr::eq(to, from) { to } else { ptr::null_mut() }
}

/// A file that is read does not grow.
extern "C" fn refuse(_: *mut c_void, _: usize, _: H5FD_file_image_op_t, _: *mut c_void) -> *mut c_void {
    ptr::null_mut()
}

/// The image is the caller's.
extern "C" fn keep(_: *mut c_void, _: H5FD_file_image_op_t, _: *mut c_void) -> herr_t {
    0
}

unsafe extern "C" fn share(span: *mut c_void) -> *mut c_void {
    span
}

unsafe extern "C" fn keep_span(_: *mut c_void) -> herr_t {
    0
}
