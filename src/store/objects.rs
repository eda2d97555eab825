//! Objects: immutable files named by the hash of their bytes.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::atomic::{entries, make_dir, sync_dir, write_file};
use super::{Hash, Ref, Store, StoreError, disk};

/// Objects are read-only for everyone: they never change.
const OBJECT_MODE: u32 = 0o444;

/// What a re-hash of an object found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectState {
    /// Its content is what its name says.
    Intact,
    /// There is no such object.
    Missing,
    /// Its content was something else; it has been moved to `store/quarantine/`.
    Damaged,
}

/// What came of an object's content that was handed over in pieces.
pub(super) enum Streamed {
    /// It is in the store now.
    Written,
    /// It was before.
    There,
    /// It could not be read, or is not what it must be; why.
    Unfit(String),
}

/// Which side of a copy failed.
pub(super) enum Halt {
    Reading(io::Error),
    Writing(io::Error),
}

/// Copies all of `from` in pieces; the hash of what was copied.
pub(super) fn copy_hashed(from: &mut dyn Read, to: &mut dyn Write) -> Result<Hash, Halt> {
    const PIECE: usize = 1 << 16;
    let mut piece = vec![0; PIECE];
    let mut hasher = blake3::Hasher::new();
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(Hash(*hasher.finalize().as_bytes())),
            Ok(n) => {
                hasher.update(&piece[..n]);
                to.write_all(&piece[..n]).map_err(Halt::Writing)?;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(Halt::Reading(e)),
        }
    }
}

impl Store {
    /// Where an object lies, whether it is there or not.
    pub(super) fn object_path(&self, hash: &Hash) -> PathBuf {
        let hex = hash.to_string();
        let (first, rest) = hex.split_at(2);
        self.root().join("store/objects/blake3").join(first).join(rest)
    }

    /// Keeps `bytes` and returns their name. An object that is there and intact is left alone; one
    /// that is damaged is replaced.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the disk refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<Hash, StoreError> {
        let hash = Hash::of(bytes);
        let path = self.object_path(&hash);
        match fs::read(&path) {
            // Touched, it counts as new for a `gc` that runs beside.
            Ok(old) if old == bytes => {
                if self.touch_object(&path)? {
                    return Ok(hash);
                }
            }
            Ok(_) => log::warn!("object {hash} was damaged and has been replaced"),
            Err(_) => {}
        }
        write_file(&path, OBJECT_MODE, |file| file.write_all(bytes))?;
        Ok(hash)
    }

    /// Keeps what `from` gives under the name that it must have; was it to be written? Nothing is
    /// visible of content with another hash. An object that is there and intact is left alone, and
    /// then nothing is read.
    ///
    /// # Errors
    /// What reading or comparing found, as [`Unfit`](Streamed::Unfit); [`StoreError::Io`] where the
    /// disk refuses.
    pub(super) fn put_stream(
        &self,
        hash: &Hash,
        size: u64,
        from: &mut dyn Read,
    ) -> Result<Streamed, StoreError> {
        let path = self.object_path(hash);
        if Hash::of_file(&path).is_ok_and(|found| found == *hash) && self.touch_object(&path)? {
            return Ok(Streamed::There);
        }
        let mut unfit = None;
        let written = write_file(&path, OBJECT_MODE, |file| {
            let found = copy_hashed(from, file).map_err(|e| match e {
                Halt::Reading(e) => {
                    unfit = Some(e.to_string());
                    e
                }
                Halt::Writing(e) => e,
            })?;
            if found != *hash {
                unfit = Some(format!("its content has the hash {found}"));
                return Err(ErrorKind::InvalidData.into());
            }
            Ok(())
        });
        match (unfit, written) {
            (Some(why), _) => Ok(Streamed::Unfit(why)),
            (None, written) => written.map(|()| Streamed::Written).map_err(|e| e.needing(size)),
        }
    }

    /// Says that an object is wanted again; `false` if it has gone meanwhile, or is another user's.
    fn touch_object(&self, path: &Path) -> Result<bool, StoreError> {
        let _kept = self.lock_collection(true)?;
        match disk::touch(path) {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Ok(false),
            Err(e) => Err(StoreError::io("touch", path)(e)),
        }
    }

    /// An object's bytes, checked against its name.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::Damaged`], once: the object is quarantined then, and
    /// missing afterwards.
    pub fn get(&self, hash: &Hash) -> Result<Vec<u8>, StoreError> {
        let path = self.object_path(hash);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(StoreError::Missing { hash: *hash }),
            Err(e) => return Err(StoreError::io("read", &path)(e)),
        };
        if Hash::of(&bytes) == *hash {
            return Ok(bytes);
        }
        Err(StoreError::Damaged { hash: *hash, quarantined: self.quarantine(&path, &hash.to_string())? })
    }

    /// Re-hashes an object; a damaged one is quarantined.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the disk refuses.
    pub fn check(&self, hash: &Hash) -> Result<ObjectState, StoreError> {
        let path = self.object_path(hash);
        match Hash::of_file(&path) {
            Ok(found) if found == *hash => Ok(ObjectState::Intact),
            Ok(_) => {
                let quarantined = self.quarantine(&path, &hash.to_string())?;
                log::warn!("object {hash} is damaged and now lies in {}", quarantined.display());
                Ok(ObjectState::Damaged)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(ObjectState::Missing),
            Err(e) => Err(StoreError::io("read", &path)(e)),
        }
    }

    /// Re-hashes every object of a unit; are they all there and intact? Damaged ones are quarantined.
    /// A finished unit for which this is false has to be done again, and must then give the objects
    /// that its ref names.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the disk refuses.
    pub fn is_whole(&self, unit: &Ref) -> Result<bool, StoreError> {
        // All of them, so that every damaged one is found now.
        let states = unit.objects.values().map(|hash| self.check(hash)).collect::<Result<Vec<_>, _>>()?;
        Ok(states.iter().all(|state| *state == ObjectState::Intact))
    }

    /// Moves a damaged file out of the way; returns where it lies now.
    pub(super) fn quarantine(&self, path: &Path, name: &str) -> Result<PathBuf, StoreError> {
        let dir = self.root().join("store/quarantine");
        make_dir(&dir)?;
        let place = dir.join(name);
        // From now on it is kept as long as the next `gc` says; that it lies there matters more.
        disk::touch(path).ok();
        disk::rename(path, &place).map_err(StoreError::io("quarantine", path))?;
        sync_dir(&dir)?;
        path.parent().map_or(Ok(()), sync_dir)?;
        Ok(place)
    }

    /// All objects by name, and files among them that are none.
    pub(super) fn objects(&self) -> Result<(Vec<Hash>, Vec<PathBuf>), StoreError> {
        let (mut objects, mut foreign) = (Vec::new(), Vec::new());
        for group in entries(&self.root().join("store/objects/blake3"))? {
            if !group.file_type().is_ok_and(|kind| kind.is_dir()) {
                foreign.push(group.path());
                continue;
            }
            for entry in entries(&group.path())? {
                let file = entry.file_name().to_string_lossy().into_owned();
                if disk::owner(&file).is_some() {
                    // Half-written, by a process that lives or one that is gone.
                    continue;
                }
                let name = format!("{}{file}", group.file_name().to_string_lossy());
                match name.parse() {
                    Ok(hash) if self.object_path(&hash) == entry.path() => objects.push(hash),
                    _ => foreign.push(entry.path()),
                }
            }
        }
        Ok((objects, foreign))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    /// Flips one bit of a stored object.
    fn damage(store: &Store, hash: &Hash) {
        let path = store.object_path(hash);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    #[test]
    fn what_goes_in_comes_out_under_its_hash() {
        let (dir, store) = store();
        let hash = store.put(b"abc").unwrap();
        assert_eq!(hash, Hash::of(b"abc"));
        assert_eq!(store.get(&hash).unwrap(), b"abc");
        let hex = hash.to_string();
        let path = dir.path().join(format!("store/objects/blake3/{}/{}", &hex[..2], &hex[2..]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
        // An object that is there is not written again.
        let inode = fs::metadata(&path).unwrap().ino();
        store.put(b"abc").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(store.put(b"").and_then(|h| store.get(&h)).unwrap(), b"");
    }

    #[test]
    fn a_flipped_bit_is_found_quarantined_and_healed() {
        let (dir, store) = store();
        let hash = store.put(b"numbers").unwrap();
        assert_eq!(store.check(&hash).unwrap(), ObjectState::Intact);
        damage(&store, &hash);
        let refused = store.get(&hash).unwrap_err();
        let StoreError::Damaged { quarantined, .. } = &refused else { panic!("{refused}") };
        assert!(quarantined.starts_with(dir.path().join("store/quarantine")));
        assert_eq!(fs::read(quarantined).unwrap().len(), 7);
        assert!(matches!(store.get(&hash), Err(StoreError::Missing { .. })));
        assert_eq!(store.check(&hash).unwrap(), ObjectState::Missing);
        store.put(b"numbers").unwrap();
        assert_eq!(store.get(&hash).unwrap(), b"numbers");

        // Found by a check instead of a read, and healed by a put that comes before either.
        damage(&store, &hash);
        assert_eq!(store.check(&hash).unwrap(), ObjectState::Damaged);
        store.put(b"numbers").unwrap();
        damage(&store, &hash);
        store.put(b"numbers").unwrap();
        assert_eq!(store.check(&hash).unwrap(), ObjectState::Intact);
    }

    #[test]
    fn a_unit_is_whole_while_all_its_objects_are() {
        let (_dir, store) = store();
        let [a, b] = [b"aa", b"bb"].map(|bytes| store.put(bytes).unwrap());
        let unit = Ref {
            kind: "run".into(),
            id: Hash::of(b"run"),
            dir: None,
            status: crate::store::Status::Done,
            when: String::new(),
            config: serde_json::Value::Null,
            objects: [("a".into(), a), ("b".into(), b)].into(),
            details: serde_json::Value::Null,
        };
        assert!(store.is_whole(&unit).unwrap());
        damage(&store, &a);
        damage(&store, &b);
        assert!(!store.is_whole(&unit).unwrap());
        assert_eq!(store.check(&b).unwrap(), ObjectState::Missing, "the second one was checked too");
        store.put(b"aa").unwrap();
        assert!(!store.is_whole(&unit).unwrap());
        store.put(b"bb").unwrap();
        assert!(store.is_whole(&unit).unwrap());
    }

    #[test]
    fn threads_may_put_the_same_and_different_objects_at_once() {
        let (_dir, store) = store();
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let store = &store;
                scope.spawn(move || {
                    for i in 0..20u32 {
                        store.put(&i.to_le_bytes()).unwrap();
                        let own = [thread, i].map(u32::to_le_bytes).concat();
                        let hash = store.put(&own).unwrap();
                        assert_eq!(store.get(&hash).unwrap(), own);
                    }
                });
            }
        });
        let (objects, foreign) = store.objects().unwrap();
        assert_eq!((objects.len(), foreign.len()), (20 + 80, 0));
        assert!(objects.iter().all(|hash| store.check(hash).unwrap() == ObjectState::Intact));
    }
}
