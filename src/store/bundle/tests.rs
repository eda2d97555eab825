//! Bundles as people make them, as disks cut them short, and as someone with bad intentions builds them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;

use serde_json::{Value, json};
use tar::Header;

use super::super::crash::{Case, survives};
use super::super::{Imported, Store};
use super::*;

const INTERNAL: [&str; 1] = ["state.bin"];

fn unit(store: &Store, kind: &str, dir: &str, id: Hash, files: &[(&str, &str)]) -> Ref {
    let put = |(name, text): &(&str, &str)| ((*name).to_owned(), store.put(text.as_bytes()).unwrap());
    Ref {
        kind: kind.into(),
        id,
        dir: Some(dir.into()),
        status: Status::Done,
        when: "2026-01-01T00:00:00Z".into(),
        config: json!({ "draws": 10 }),
        objects: files.iter().map(put).collect(),
        details: Value::Null,
    }
}

fn target_id() -> Hash {
    Hash::of(b"target")
}

fn run_id() -> Hash {
    Hash::of(b"run")
}

fn target_dir() -> String {
    format!("runs/targets/tgt_{}", target_id().short(12))
}

fn run_dir() -> String {
    format!("{}/run_hmc_{}", target_dir(), run_id().short(8))
}

fn manifest(name: &str, runs: &[Hash]) -> Vec<u8> {
    let runs: Vec<Value> = runs.iter().map(|id| json!({ "run_id": id, "sampler": "hmc" })).collect();
    json!({ "experiment": name, "targets": [{ "target_id": target_id() }], "runs": runs })
        .to_string()
        .into_bytes()
}

/// A store with one target, one run, one run that failed, and the experiment of the three.
fn filled(root: &Path) {
    let store = Store::open(root).unwrap();
    let failed_id = Hash::of(b"failed");
    let target =
        unit(&store, TARGET, &target_dir(), target_id(), &[("data.npz", "data"), ("params.npz", "w")]);
    let run = unit(
        &store,
        RUN,
        &run_dir(),
        run_id(),
        &[("trace.nc", "draws"), ("state.bin", "end"), ("copy", "w")],
    );
    let status = Status::Failed { reason: "NaN".into(), settled: true };
    let failed =
        Ref { dir: None, status, objects: BTreeMap::new(), ..unit(&store, RUN, "x/y", failed_id, &[]) };
    for unit in [&target, &run, &failed] {
        store.write_ref(unit).unwrap();
        store.lay_out(unit, &INTERNAL).unwrap();
    }
    let place = experiment_manifest("dev").unwrap();
    store.write_file(&place, &manifest("dev", &[run_id(), failed_id])).unwrap();
    store.rebuild_catalog().unwrap();
}

/// One root that is filled and its bundle, made once.
static GOOD: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    filled(&root);
    let out = dir.path().join("good.tar");
    Store::open(&root).unwrap().export("dev", &out).unwrap();
    (dir, out)
});

/// An entry as it stands in the file.
#[derive(Clone)]
struct Entry {
    name: String,
    kind: EntryType,
    size: u64,
    content: Vec<u8>,
}

fn entries_of(path: &Path) -> Vec<Entry> {
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    let read = |entry: io::Result<tar::Entry<'_, File>>| {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        Entry { name, kind: EntryType::Regular, size: content.len() as u64, content }
    };
    archive.entries().unwrap().map(read).collect()
}

fn write(entries: &[Entry]) -> Vec<u8> {
    let mut file = Vec::new();
    for entry in entries {
        let mut header = Header::new_ustar();
        // `set_path` refuses what is to be tried.
        header.as_mut_bytes()[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_size(entry.size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if matches!(entry.kind, EntryType::Symlink | EntryType::Link) {
            header.as_mut_bytes()[157..157 + 11].copy_from_slice(b"/etc/passwd");
        }
        header.set_cksum();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(&entry.content);
        file.resize(file.len().next_multiple_of(512), 0);
    }
    file.resize(file.len() + 1024, 0);
    file
}

/// Changes the index as JSON.
fn with_index(entries: &mut [Entry], change: impl FnOnce(&mut Value)) {
    let mut index: Value = serde_json::from_slice(&entries[0].content).unwrap();
    change(&mut index);
    entries[0].content = index.to_string().into_bytes();
    entries[0].size = entries[0].content.len() as u64;
}

/// Puts other content into an entry and sets the index right: size and hash are as promised.
fn with_content(entries: &mut [Entry], which: usize, content: Vec<u8>) {
    let (hash, size) = (Hash::of(&content), content.len());
    let name = entries[which].name.clone();
    entries[which] = Entry { size: size as u64, content, ..entries[which].clone() };
    with_index(entries, |index| {
        let line = if name.starts_with("results/") {
            &mut index["manifest"]
        } else {
            let refs = index["refs"].as_array_mut().unwrap();
            refs.iter_mut().find(|line| name.contains(line["id"].as_str().unwrap())).unwrap()
        };
        line["blake3"] = json!(hash);
        line["size"] = json!(size);
    });
}

/// The file of a ref that is not in the store of its own.
fn ref_file(change: impl FnOnce(&mut Ref)) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut unit = unit(
        &store,
        RUN,
        &run_dir(),
        run_id(),
        &[("trace.nc", "draws"), ("state.bin", "end"), ("copy", "w")],
    );
    change(&mut unit);
    store.write_ref(&unit).unwrap();
    fs::read(store.ref_path(RUN, &unit.id)).unwrap()
}

fn position(entries: &[Entry], part: &str) -> usize {
    entries.iter().position(|entry| entry.name.contains(part)).unwrap()
}

/// What opening a bundle of these bytes says.
fn opened(bytes: &[u8]) -> Result<Bundle, StoreError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    fs::write(&path, bytes).unwrap();
    Bundle::open(&path)
}

fn import(root: &Path, bundle: &Path) -> Result<Imported, StoreError> {
    let bundle = Bundle::open(bundle)?;
    Store::open_exclusive(root)?.import(&bundle, &INTERNAL)
}

#[test]
fn what_is_exported_is_imported_and_the_same_store_gives_the_same_bytes() {
    let (dir, good) = &*GOOD;
    let again = dir.path().join("again.tar");
    let report = Store::open(&dir.path().join("root")).unwrap().export("dev", &again).unwrap();
    assert_eq!((report.targets, report.runs, report.objects), (1, 2, 4));
    assert!(report.left_out.is_empty());
    assert!(fs::read(&again).unwrap() == fs::read(good).unwrap());
    // Written again entry by entry it is the same file: nothing in it that was not read.
    assert!(write(&entries_of(good)) == fs::read(good).unwrap());

    let root = tempfile::tempdir().unwrap();
    let first = import(root.path(), good).unwrap();
    assert_eq!((first.new.len(), first.kept.len(), first.objects, first.shared), (3, 0, 4, 0));
    let second = import(root.path(), good).unwrap();
    assert_eq!((second.new.len(), second.kept.len(), second.objects, second.shared), (0, 3, 0, 4));
    let store = Store::open(root.path()).unwrap();
    assert!(store.verify().unwrap().is_sound() && store.verify().unwrap().orphans.is_empty());
    for path in [
        format!("{}/trace.nc", run_dir()),
        format!("{}/data.npz", target_dir()),
        format!("{}/_runs.jsonl", target_dir()),
        "runs/targets/_catalog.jsonl".into(),
        "results/dev.manifest.json".into(),
        format!("store/refs/run/{}.json", run_id()),
    ] {
        let read = |root: &Path| fs::read(root.join(&path)).unwrap();
        assert_eq!(read(root.path()), read(&dir.path().join("root")), "{path}");
    }
    assert!(!root.path().join(run_dir()).join("state.bin").exists());
}

#[test]
fn hostile_bundles_are_refused_with_the_entry_and_the_reason() {
    let good = entries_of(&GOOD.1);
    let (object, last) = (position(&good, "objects/"), good.len());
    let run = position(&good, &format!("refs/run/{}", run_id()));
    let named =
        |name: &str| Entry { name: name.into(), kind: EntryType::Regular, size: 1, content: b"x".to_vec() };
    let of_kind = |kind| Entry { name: "objects/x".into(), kind, size: 0, content: Vec::new() };
    type Change<'a> = Box<dyn Fn(&mut Vec<Entry>) + 'a>;
    let insert =
        |at: usize, entry: Entry| -> Change<'_> { Box::new(move |all| all.insert(at, entry.clone())) };
    let index = |change: fn(&mut Value)| -> Change<'_> { Box::new(move |all| with_index(all, change)) };
    let of_run = |change: fn(&mut Ref)| -> Change<'_> {
        Box::new(move |all| with_content(all, run, ref_file(change)))
    };
    let cases: Vec<(&str, Change<'_>, &[&str])> = vec![
        ("absolute", insert(last, named("/etc/cron.d/x")), &["\"/etc/cron.d/x\"", "absolute path"]),
        ("up", insert(1, named("objects/../../x")), &["\"objects/../../x\"", "leaves the bundle"]),
        ("up, first", insert(0, named("../x")), &["\"../x\"", "bundle.json should be"]),
        ("here", insert(1, named("./objects/x")), &["leaves the bundle"]),
        ("symbolic link", insert(1, of_kind(EntryType::Symlink)), &["\"objects/x\"", "a symbolic link"]),
        ("hard link", insert(last, of_kind(EntryType::Link)), &["a hard link"]),
        ("character device", insert(1, of_kind(EntryType::Char)), &["a device"]),
        ("block device", insert(1, of_kind(EntryType::Block)), &["a device"]),
        ("pipe", insert(1, of_kind(EntryType::Fifo)), &["a named pipe"]),
        ("directory", insert(1, of_kind(EntryType::Directory)), &["a directory"]),
        ("long name", insert(1, of_kind(EntryType::GNULongName)), &["an extended header"]),
        ("pax header", insert(1, of_kind(EntryType::XHeader)), &["an extended header"]),
        ("sparse", insert(1, of_kind(EntryType::GNUSparse)), &["of type 'S'"]),
        ("link in front", insert(0, of_kind(EntryType::Symlink)), &["a symbolic link"]),
        (
            "unknown, at the end",
            insert(last, named("objects/more")),
            &["\"objects/more\"", "not listed", "the end"],
        ),
        ("unknown, inside", insert(2, named("store/lock")), &["\"store/lock\"", "not listed"]),
        ("comes twice", Box::new(|all| all.insert(object + 1, all[object].clone())), &["comes twice"]),
        ("two indices", Box::new(|all| all.insert(1, all[0].clone())), &["\"bundle.json\"", "comes twice"]),
        ("out of order", Box::new(|all| all.swap(1, 2)), &["out of order"]),
        ("one missing", Box::new(|all| drop(all.remove(2))), &["out of order"]),
        ("the last missing", Box::new(|all| drop(all.pop())), &["results/dev.manifest.json", "is missing"]),
        ("content", Box::new(|all| all[object].content[0] ^= 1), &["objects/", "has the hash", "promised"]),
        ("ref's content", Box::new(|all| all[run].content[100] ^= 1), &["refs/run/", "has the hash"]),
        (
            "longer than listed",
            Box::new(|all| {
                all[object].content.push(0);
                all[object].size += 1;
            }),
            &["bundle.json says"],
        ),
        ("huge in its header", Box::new(|all| all[object].size = 1 << 60), &["more than the file has left"]),
        ("huge first", Box::new(|all| all[0].size = 1 << 40), &["more than the file has left"]),
        ("format", index(|i| i["format"] = json!(2)), &["format 2"]),
        ("name", index(|i| i["experiment"] = json!("../../etc")), &["../../etc", "use 1 to 64"]),
        ("other name", index(|i| i["experiment"] = json!("other")), &["not listed"]),
        ("kind", index(|i| i["refs"][0]["kind"] = json!("../x")), &["kind \"../x\""]),
        ("unknown key", index(|i| i["path"] = json!("/")), &["unknown field"]),
        ("no hash", index(|i| i["objects"][0]["blake3"] = json!("../../x")), &["bundle.json", "no id"]),
        ("negative size", index(|i| i["objects"][0]["size"] = json!(-1)), &["bundle.json", "-1"]),
        (
            "oversized object",
            index(|i| i["objects"][0]["size"] = json!(u64::MAX)),
            &["objects/", "are more than"],
        ),
        (
            "oversized ref",
            index(|i| i["refs"][0]["size"] = json!(MOST_REF + 1)),
            &["refs/target/", "are more than"],
        ),
        (
            "oversized manifest",
            index(|i| i["manifest"]["size"] = json!(1u64 << 40)),
            &["manifest.json", "are more"],
        ),
        (
            "listed twice",
            index(|i| {
                let first = i["objects"][0].clone();
                i["objects"].as_array_mut().unwrap().insert(0, first);
            }),
            &["comes twice"],
        ),
        ("size listed wrong", index(|i| i["objects"][0]["size"] = json!(77)), &["bundle.json says 77"]),
        (
            "ref of another unit",
            Box::new(|all| with_content(all, run, ref_file(|r| r.id = Hash::of(b"other")))),
            &["refs/run/", "it is the record of"],
        ),
        (
            "no ref at all",
            Box::new(|all| with_content(all, run, b"{}".to_vec())),
            &["refs/run/", "beginning is wrong"],
        ),
        (
            "directory of another",
            of_run(|r| r.dir = Some("runs/targets/tgt_0/run_hmc_0".into())),
            &["not its own"],
        ),
        ("directory elsewhere", of_run(|r| r.dir = Some("results/dev.h5".into())), &["not its own"]),
        ("no directory", of_run(|r| r.dir = None), &["has no directory"]),
        (
            "an object that nothing names",
            of_run(|r| {
                r.objects.remove("trace.nc");
            }),
            &["objects/", "is named by no ref"],
        ),
        (
            "a listing's name",
            of_run(|r| {
                let hash = r.objects.remove("trace.nc").unwrap();
                r.objects.insert("_runs.jsonl".into(), hash);
            }),
            &["among listings"],
        ),
        (
            "to be made again",
            of_run(|r| r.status = Status::Failed { reason: String::new(), settled: false }),
            &["to be made again"],
        ),
        (
            "no member",
            Box::new(|all| with_content(all, last - 1, manifest("dev", &[run_id()]))),
            &["refs/run/", "no member"],
        ),
        (
            "manifest of another",
            Box::new(|all| with_content(all, last - 1, manifest("other", &[run_id()]))),
            &["dev.manifest.json", "manifest of \"other\""],
        ),
        ("no manifest", Box::new(|all| with_content(all, last - 1, b"[]".to_vec())), &["no manifest"]),
    ];
    for (what, change, words) in cases {
        let mut all = good.clone();
        change(&mut all);
        let told = match opened(&write(&all)) {
            Err(e @ StoreError::Bundle { .. }) => e.to_string(),
            other => panic!("{what}: {other:?}"),
        };
        assert!(words.iter().all(|word| told.contains(word)), "{what}: {told}");
        assert!(told.contains("x.tar: ") && told.contains("have the bundle exported"), "{what}: {told}");
    }
    assert!(opened(&write(&good)).is_ok(), "what was changed was all that was wrong");
}

#[test]
fn whatever_is_cut_off_or_added_is_found() {
    let good = fs::read(&GOOD.1).unwrap();
    for length in (0..good.len()).step_by(100).chain([good.len() - 1, good.len() - 512, good.len() - 1024]) {
        let told = opened(&good[..length]).unwrap_err();
        assert!(matches!(told, StoreError::Bundle { .. }), "{length}: {told}");
    }
    for added in [vec![0; 1], vec![0; 512], b"more".to_vec(), good.clone()] {
        let told = opened(&[good.clone(), added].concat()).unwrap_err().to_string();
        assert!(told.contains("added to"), "{told}");
    }
    // Flipped bits anywhere: refused, or in a field of a header that says nothing (owner, rights, time), or
    // in the blocks behind the end.
    let mut bytes = good.clone();
    let mut passed = 0;
    for i in (0..good.len() - 1024).step_by(11) {
        bytes[i] ^= 0x10;
        passed += usize::from(opened(&bytes).is_ok());
        bytes[i] = good[i];
    }
    // The padding behind a content says nothing either.
    let padding: u64 =
        entries_of(&GOOD.1).iter().map(|entry| entry.size.next_multiple_of(512) - entry.size).sum();
    assert!(passed as u64 <= padding.div_ceil(11) + 1, "{passed} of {padding}");
    for text in [&b""[..], b"PK\x03\x04 no tar file", &[0; 512], &[0; 10_240]] {
        assert!(matches!(opened(text), Err(StoreError::Bundle { .. })));
    }
}

#[test]
fn what_contradicts_the_store_is_refused_and_what_agrees_is_kept() {
    let bundle = &GOOD.1;
    let conflict = |change: &dyn Fn(&Store)| {
        let root = tempfile::tempdir().unwrap();
        filled(root.path());
        change(&Store::open(root.path()).unwrap());
        let before = Store::open(root.path()).unwrap().list().unwrap();
        let done = import(root.path(), bundle);
        if done.is_err() {
            assert_eq!(Store::open(root.path()).unwrap().list().unwrap(), before);
        }
        done.map_err(|e| match e {
            StoreError::Conflict { .. } => e.to_string(),
            e => panic!("{e}"),
        })
    };
    let own = |store: &Store| store.read_ref(RUN, &run_id()).unwrap().unwrap();
    // Other content under the same id.
    let told = conflict(&|store| {
        let other = unit(store, RUN, &run_dir(), run_id(), &[("trace.nc", "other draws")]);
        store.write_ref(&other).unwrap();
    });
    let told = told.unwrap_err();
    assert!(told.contains(&own(&Store::open(&GOOD.0.path().join("root")).unwrap()).urn()), "{told}");
    assert!(told.contains("with other content") && told.contains("artifacts rm"), "{told}");
    // Made on another day: the same.
    let done = conflict(&|store| {
        store.write_ref(&Ref { when: "2020-02-02T00:00:00Z".into(), ..own(store) }).unwrap()
    });
    assert_eq!(done.unwrap().kept.len(), 3);
    // Failed by its numbers here, done there.
    let failed = |settled| Status::Failed { reason: "x".into(), settled };
    let told = conflict(&|store| {
        let unit = Ref { status: failed(true), objects: BTreeMap::new(), dir: None, ..own(store) };
        store.write_ref(&unit).unwrap();
    });
    assert!(told.unwrap_err().contains("with other content"));
    // To be made again here: it is made by being imported.
    let done = conflict(&|store| store.write_ref(&Ref { status: failed(false), ..own(store) }).unwrap());
    assert_eq!(done.unwrap().new, [own(&Store::open(&GOOD.0.path().join("root")).unwrap()).urn()]);
    // Another unit in the directory.
    let told = conflict(&|store| {
        store.remove_ref(RUN, &run_id()).unwrap();
        store.write_ref(&unit(store, RUN, &run_dir(), Hash::of(b"third"), &[("trace.nc", "z")])).unwrap();
    });
    assert!(told.unwrap_err().contains("has the directory of"));
    // Manifests: the larger one stays, and one that neither covers is refused.
    let place = experiment_manifest("dev").unwrap();
    let (failed_id, third) = (Hash::of(b"failed"), Hash::of(b"third"));
    let with = |runs: &[Hash]| {
        let text = manifest("dev", runs);
        conflict(&|store| store.write_file(&place, &text).unwrap())
    };
    assert!(with(&[run_id()]).is_ok());
    assert!(with(&[run_id(), failed_id, third]).is_ok());
    assert!(with(&[third]).unwrap_err().contains("names other runs"));
}

#[test]
fn a_ref_may_name_what_the_store_has_and_nothing_else() {
    let mut all = entries_of(&GOOD.1);
    let run = position(&all, &format!("refs/run/{}", run_id()));
    let foreign = Hash::of(b"foreign");
    let change = |unit: &mut Ref| {
        unit.objects.insert("more.nc".into(), Hash::of(b"foreign"));
    };
    with_content(&mut all, run, ref_file(change));
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("x.tar");
    fs::write(&path, write(&all)).unwrap();
    let told = import(root.path(), &path).unwrap_err().to_string();
    assert!(
        told.contains(&foreign.to_string()) && told.contains("neither the bundle nor this store"),
        "{told}"
    );
    assert!(Store::open(root.path()).unwrap().list().unwrap().is_empty());
    assert!(Store::open(root.path()).unwrap().objects().unwrap().0.is_empty());
    Store::open(root.path()).unwrap().put(b"foreign").unwrap();
    assert_eq!(import(root.path(), &path).unwrap().new.len(), 3);
}

#[test]
fn a_file_that_changes_after_the_check_harms_nothing() {
    let good = entries_of(&GOOD.1);
    let object = position(&good, "objects/");
    for (what, words) in [(object, "has the hash"), (0, "has changed since it was checked")] {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.tar");
        fs::write(&path, write(&good)).unwrap();
        let bundle = Bundle::open(&path).unwrap();
        let mut all = good.clone();
        if what == 0 {
            with_index(&mut all, |index| index["objects"][0]["size"] = json!(1));
        } else {
            all[what].content[0] ^= 1;
        }
        fs::write(&path, write(&all)).unwrap();
        let store = Store::open_exclusive(root.path()).unwrap();
        let told = store.import(&bundle, &INTERNAL).unwrap_err().to_string();
        assert!(told.contains(words) && told.contains("since it was checked"), "{told}");
        assert!(store.verify().unwrap().is_sound() && store.list().unwrap().is_empty());
        assert!(!store.object_path(&good[object].name[8..].parse().unwrap()).exists());
    }
}

#[test]
fn an_export_tells_what_is_damaged_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    filled(root.path());
    let store = Store::open(root.path()).unwrap();
    let path = store.object_path(&Hash::of(b"draws"));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "drawn").unwrap();
    let out = root.path().join("out.tar");
    let urn = crate::store::urn(RUN, &run_id());
    let told = store.export("dev", &out).unwrap_err().to_string();
    assert!(told.starts_with(&format!("trace.nc of {urn} is damaged")), "{told}");
    let told = store.export("dev", &out).unwrap_err().to_string();
    assert!(told.starts_with(&format!("trace.nc of {urn} is missing")), "{told}");
    assert!(!out.exists());
    // A repair takes it back from its copy.
    drop(store);
    Store::open_exclusive(root.path()).unwrap().repair(&INTERNAL).unwrap();
    let store = Store::open(root.path()).unwrap();
    store.export("dev", &out).unwrap();
    assert!(fs::read(&out).unwrap() == fs::read(&GOOD.1).unwrap());
    let told = store.export("deve", &out).unwrap_err().to_string();
    assert!(told.contains("no experiment \"deve\"") && told.contains("name one of dev"), "{told}");
    // What was removed, or is to be made again, is left out and named.
    let run = store.read_ref(RUN, &run_id()).unwrap().unwrap();
    let status = Status::Failed { reason: "lost".into(), settled: false };
    store.write_ref(&Ref { status, ..run }).unwrap();
    store.remove_ref(RUN, &Hash::of(b"failed")).unwrap();
    let report = store.export("dev", &out).unwrap();
    assert_eq!((report.targets, report.runs, report.left_out.len()), (1, 0, 2));
    assert_eq!(Bundle::open(&out).unwrap().refs.len(), 1);
}

#[test]
fn import_and_export_survive_being_killed_anywhere() {
    LazyLock::force(&GOOD);
    let import_case = Case {
        name: "importing a bundle",
        before: |root| drop(Store::open(root).unwrap()),
        work: |root| import(root, &GOOD.1).map(drop),
        sound: true,
    };
    assert!(survives(&import_case) > 60);
    let beside = Case {
        name: "importing beside other work",
        before: |root| {
            filled(root);
            let store = Store::open_exclusive(root).unwrap();
            store.remove(&run_id().to_string()).unwrap();
        },
        work: |root| import(root, &GOOD.1).map(drop),
        sound: true,
    };
    assert!(survives(&beside) > 15);
    let export = Case {
        name: "exporting over an older bundle",
        before: |root| {
            filled(root);
            fs::write(root.join("results/dev.tar"), "older").unwrap();
        },
        work: |root| Store::open(root)?.export("dev", &root.join("results/dev.tar")).map(drop),
        sound: true,
    };
    assert!(survives(&export) > 5);
}
