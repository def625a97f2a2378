//! A second level of the store: read through, and written to in the background of the run.
//!
//! Nothing that a remote returns is used before it is checked: objects against their digests,
//! records against their checksums. After a failed read, the rest of the run does not use the remote;
//! after a failed write it uploads nothing more. [`Remote::finish`] reports the first failure.
//!
//! An object that does not match its digest is refused, and recorded by a marker in the local
//! folder: it counts as missing until it is uploaded again. As long as there is such a marker, an
//! object counts as present only once it is fetched and checked, so that a run after one that found
//! corrupt objects recomputes them.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use millrace_threads::lock;
use millrace_types::wire::Kind;
use millrace_types::{BlobDigest, ObjectRef, PackDigest, RecordName};

use crate::backend::{Backend, Created};
use crate::error::Result;
use crate::folder::Folder;

/// Whether the bytes of a pack match its digest. The store knows no Arrow, so the caller
/// provides it.
pub type VerifyPack = fn(&[u8], &PackDigest) -> bool;

/// Records that wait to be uploaded, at most; when the queue is full, the run waits.
const QUEUE: usize = 4096;

/// The folder of the markers of refused objects.
const REFUSED: &str = "refused";

/// A record to upload, after the objects that it refers to.
struct Upload {
    kind: Kind,
    name: RecordName,
    bytes: Vec<u8>,
    objects: Vec<ObjectRef>,
}

/// What was exchanged with a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Objects and records that were fetched.
    pub fetched: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// Objects and records that were uploaded.
    pub uploaded: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
}

/// What the uploading thread shares with the others.
struct RemoteState {
    backend: Box<dyn Backend>,
    local: Folder,
    verify_pack: VerifyPack,
    is_down: AtomicBool,
    /// Whether a write has failed: nothing is uploaded any more, and reads go on.
    is_read_only: AtomicBool,
    /// The names of the markers of refused objects.
    refused: Mutex<HashSet<String>>,
    error: Mutex<Option<String>>,
    traffic: Mutex<Traffic>,
}

/// A remote store.
pub(crate) struct Remote {
    /// Its URL.
    url: String,
    shared: Arc<RemoteState>,
    /// The records that were fetched or queued.
    known: Mutex<HashSet<(Kind, RecordName)>>,
    uploads: Mutex<Option<SyncSender<Upload>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&self.shared.backend).finish()
    }
}

impl RemoteState {
    /// The value; `None` if the remote failed, now or before: then it is not used again.
    fn attempt<T>(&self, call: impl FnOnce(&dyn Backend) -> Result<T>) -> Option<T> {
        if self.is_down.load(Ordering::Relaxed) {
            return None;
        }
        match call(&*self.backend) {
            Ok(value) => Some(value),
            Err(error) => {
                self.is_down.store(true, Ordering::Relaxed);
                lock(&self.error).get_or_insert_with(|| error.to_string());
                None
            }
        }
    }

    /// The same for a write, whose failure only ends the uploads.
    fn attempt_write<T>(&self, call: impl FnOnce(&dyn Backend) -> Result<T>) -> Option<T> {
        if !self.takes_uploads() {
            return None;
        }
        match call(&*self.backend) {
            Ok(value) => Some(value),
            Err(error) => {
                self.is_read_only.store(true, Ordering::Relaxed);
                lock(&self.error).get_or_insert_with(|| error.to_string());
                None
            }
        }
    }

    fn takes_uploads(&self) -> bool {
        !self.is_down.load(Ordering::Relaxed) && !self.is_read_only.load(Ordering::Relaxed)
    }

    fn is_intact(&self, object: &ObjectRef, bytes: &Bytes) -> bool {
        bytes.len() as u64 == object.size()
            && match object {
                ObjectRef::Pack(digest, _) => (self.verify_pack)(bytes, digest),
                ObjectRef::Blob(digest, _) => BlobDigest::of(bytes) == *digest,
            }
    }

    fn is_refused(&self, object: &ObjectRef) -> bool {
        lock(&self.refused).contains(&marker(object))
    }

    /// Counts an object of the remote as missing from now on.
    fn refuse(&self, object: &ObjectRef) {
        let message = format!(
            "its object {} does not match the digest and was not used; the next run computes it again",
            object.hex()
        );
        lock(&self.error).get_or_insert(message);
        let marker = marker(object);
        let _ = self.local.write_file(&self.local.marker_path(REFUSED, &marker), &[]);
        lock(&self.refused).insert(marker);
    }

    /// Counts an object as present again, after it was uploaded again.
    fn accept(&self, object: &ObjectRef) {
        let marker = marker(object);
        if lock(&self.refused).remove(&marker) {
            let _ = std::fs::remove_file(self.local.marker_path(REFUSED, &marker));
        }
    }

    /// Uploads the objects of a record that the remote lacks, then the record.
    fn upload(&self, upload: &Upload) {
        let Upload { kind, name, bytes, objects } = upload;
        let Some(present) = self.attempt(|backend| backend.has_objects(objects)) else { return };
        let is_missing = |(object, present): &(&ObjectRef, bool)| !present || self.is_refused(object);
        let missing = objects.iter().zip(present).filter(is_missing).map(|(object, _)| object);
        for object in missing {
            // An object that is missing locally cannot be shared, and so neither can the record.
            let Ok(content) = self.local.object(object) else { return };
            if !self.is_intact(object, &content) {
                return;
            }
            if self.attempt_write(|backend| backend.put_object(object, &content)).is_none() {
                return;
            }
            self.accept(object);
            self.count(|traffic| (&mut traffic.uploaded, &mut traffic.uploaded_bytes), content.len());
        }
        if self.attempt_write(|backend| backend.create_record(*kind, name, bytes)) == Some(Created::New) {
            self.count(|traffic| (&mut traffic.uploaded, &mut traffic.uploaded_bytes), bytes.len());
        }
    }

    fn count(&self, counters: impl Fn(&mut Traffic) -> (&mut u64, &mut u64), bytes: usize) {
        let mut traffic = lock(&self.traffic);
        let (count, size) = counters(&mut traffic);
        *count += 1;
        *size += bytes as u64;
    }
}

impl Remote {
    pub(crate) fn new(url: String, backend: Box<dyn Backend>, local: Folder, verify_pack: VerifyPack) -> Self {
        let refused = local.markers(REFUSED);
        let shared = RemoteState {
            backend,
            local,
            verify_pack,
            is_down: AtomicBool::new(false),
            is_read_only: AtomicBool::new(false),
            refused: Mutex::new(refused),
            error: Mutex::default(),
            traffic: Mutex::default(),
        };
        let (known, uploads, thread) = Default::default();
        Self { url, shared: Arc::new(shared), known, uploads, thread }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether a record has been neither fetched nor queued so far; from now on it counts as such.
    pub(crate) fn is_first(&self, kind: Kind, name: &RecordName) -> bool {
        lock(&self.known).insert((kind, *name))
    }

    /// Which of the objects the remote has; none of them if it fails.
    pub(crate) fn has(&self, objects: &[ObjectRef]) -> Vec<bool> {
        let none = || vec![false; objects.len()];
        if objects.is_empty() {
            return none();
        }
        let present = self.shared.attempt(|backend| backend.has_objects(objects)).unwrap_or_else(none);
        if lock(&self.shared.refused).is_empty() {
            return present;
        }
        objects.iter().zip(present).map(|(object, present)| present && self.fetch(object)).collect()
    }

    /// Fetches an object into the local folder. Returns whether it is there now.
    pub(crate) fn fetch(&self, object: &ObjectRef) -> bool {
        if self.shared.is_refused(object) {
            return false;
        }
        let Some(Some(bytes)) = self.shared.attempt(|backend| backend.get_object(object)) else { return false };
        if !self.shared.is_intact(object, &bytes) {
            self.shared.refuse(object);
            return false;
        }
        self.shared.count(|traffic| (&mut traffic.fetched, &mut traffic.fetched_bytes), bytes.len());
        self.shared.local.put_object(object, &bytes).is_ok()
    }

    /// The encoded record of a name.
    pub(crate) fn record(&self, kind: Kind, name: &RecordName) -> Option<Bytes> {
        let found = self.shared.attempt(|backend| backend.get_records(kind, std::slice::from_ref(name)))?;
        let bytes = found.into_iter().next().flatten()?;
        self.shared.count(|traffic| (&mut traffic.fetched, &mut traffic.fetched_bytes), bytes.len());
        Some(bytes)
    }

    /// Queues a record for upload, with the objects that it refers to.
    pub(crate) fn publish(&self, kind: Kind, name: RecordName, bytes: Vec<u8>, objects: Vec<ObjectRef>) {
        if !self.shared.takes_uploads() {
            return;
        }
        let sender = lock(&self.uploads).get_or_insert_with(|| self.start()).clone();
        let upload = Upload { kind, name, bytes, objects };
        // If the thread did not start, this one uploads.
        if let Err(unsent) = sender.send(upload) {
            self.shared.upload(&unsent.0);
        }
    }

    fn start(&self) -> SyncSender<Upload> {
        let (sender, receiver): (_, Receiver<Upload>) = sync_channel(QUEUE);
        let shared = self.shared.clone();
        let work = move || receiver.into_iter().for_each(|upload| shared.upload(&upload));
        if let Ok(thread) = std::thread::Builder::new().name("upload".to_owned()).spawn(work) {
            *lock(&self.thread) = Some(thread);
        }
        sender
    }

    /// Waits until everything is uploaded. Returns what was exchanged, and the first failure.
    pub(crate) fn finish(&self) -> (Traffic, Option<String>) {
        drop(lock(&self.uploads).take());
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        (*lock(&self.shared.traffic), lock(&self.shared.error).clone())
    }
}

/// The name of the marker of an object.
fn marker(object: &ObjectRef) -> String {
    match object {
        ObjectRef::Pack(digest, _) => format!("pack-{}", digest.hex()),
        ObjectRef::Blob(digest, _) => format!("blob-{}", digest.hex()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::path::Path;
    use std::sync::atomic::AtomicUsize;

    use millrace_types::{BlobRef, Manifest, ManifestName, Record, Reference};
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::error::StoreError;
    use crate::store::Store;

    /// A record with an object.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Note(BlobRef);

    impl Record for Note {
        const KIND: Kind = <Manifest as Record>::KIND;
        type Name = ManifestName;

        fn references(&self) -> Vec<Reference> {
            vec![Reference::Object(self.0.object())]
        }
    }

    /// A backend in memory whose calls fail from call `fails_from` on.
    #[derive(Debug, Clone, Default)]
    struct Memory {
        objects: Arc<Mutex<BTreeMap<ObjectRef, Bytes>>>,
        records: Arc<Mutex<BTreeMap<RecordName, Vec<u8>>>>,
        calls: Arc<AtomicUsize>,
        fails_from: Option<usize>,
    }

    impl Memory {
        fn call(&self) -> Result<()> {
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            if self.fails_from.is_some_and(|first| call >= first) {
                let gone = io::Error::other("the connection was reset");
                return Err(StoreError::new("reach", Path::new("memory"), gone));
            }
            Ok(())
        }
    }

    impl Backend for Memory {
        fn has_objects(&self, objects: &[ObjectRef]) -> Result<Vec<bool>> {
            self.call()?;
            Ok(objects.iter().map(|object| lock(&self.objects).contains_key(object)).collect())
        }

        fn get_object(&self, object: &ObjectRef) -> Result<Option<Bytes>> {
            self.call()?;
            Ok(lock(&self.objects).get(object).cloned())
        }

        fn put_object(&self, object: &ObjectRef, bytes: &Bytes) -> Result<()> {
            self.call()?;
            lock(&self.objects).insert(*object, bytes.clone());
            Ok(())
        }

        fn get_records(&self, _: Kind, names: &[RecordName]) -> Result<Vec<Option<Bytes>>> {
            self.call()?;
            Ok(names.iter().map(|name| lock(&self.records).get(name).cloned().map(Bytes::from)).collect())
        }

        fn create_record(&self, _: Kind, name: &RecordName, bytes: &[u8]) -> Result<Created> {
            self.call()?;
            lock(&self.records).insert(*name, bytes.to_vec());
            Ok(Created::New)
        }
    }

    fn open(folder: &Path, memory: &Memory) -> Store {
        Store::open(folder).unwrap().with_remote("memory:", Box::new(memory.clone()), |_, _| true)
    }

    fn name(number: usize) -> ManifestName {
        blake3::hash(&number.to_le_bytes()).into()
    }

    /// Whichever call is the first to fail, a reader gets what was written or nothing, and a record
    /// never appears in the remote before its object.
    #[test]
    fn a_remote_that_fails_at_any_call_gives_what_was_written_or_nothing() {
        const NOTES: usize = 4;
        // For each note the writer makes three calls and the reader two.
        for fails_from in (0..5 * NOTES).map(Some).chain([None]) {
            let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let memory = Memory { fails_from, ..Memory::default() };
            let writer = open(a.path(), &memory);
            for number in 0..NOTES {
                let blob = writer.put_blob(format!("note {number}").as_bytes()).unwrap();
                writer.put_record(&name(number), &Note(blob)).unwrap();
                assert_eq!(writer.record::<Note>(&name(number)), Some(Note(blob)), "the local store is complete");
            }
            let (traffic, error) = writer.finish_remote().unwrap();
            assert!(lock(&memory.records).len() <= lock(&memory.objects).len());
            let reader = open(b.path(), &memory);
            let mut found = 0;
            for number in 0..NOTES {
                let Some(Note(blob)) = reader.record::<Note>(&name(number)) else { continue };
                let Ok(bytes) = reader.blob(&blob) else { continue };
                assert_eq!(bytes, format!("note {number}").as_bytes());
                found += 1;
            }
            let (_, reading) = reader.finish_remote().unwrap();
            let is_complete = fails_from.is_none();
            assert_eq!(
                (found == NOTES, error.is_none() && reading.is_none()),
                (is_complete, is_complete),
                "{fails_from:?}"
            );
            assert!(traffic.uploaded <= 2 * NOTES as u64);
        }
    }

    #[test]
    fn an_object_that_does_not_match_is_refused_until_it_is_uploaded_again() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let memory = Memory::default();
        let writer = open(a.path(), &memory);
        let blob = writer.put_blob(b"right").unwrap();
        writer.put_record(&name(0), &Note(blob)).unwrap();
        writer.finish_remote();
        lock(&memory.objects).insert(blob.object(), Bytes::from_static(b"wrong"));

        let reader = open(b.path(), &memory);
        assert!(reader.has_all(&[blob.object()]), "it looks present");
        assert!(reader.blob(&blob).is_err());
        assert!(!reader.has_all(&[blob.object()]), "it counts as missing once it is refused");
        // The marker outlives the process.
        let reader = open(b.path(), &memory);
        assert!(!reader.has_all(&[blob.object()]));
        assert_eq!(reader.put_blob(b"right").unwrap(), blob);
        reader.put_record(&name(1), &Note(blob)).unwrap();
        assert_eq!(reader.finish_remote().unwrap().1, None);
        assert_eq!(lock(&memory.objects)[&blob.object()], b"right"[..]);
        let other = tempfile::tempdir().unwrap();
        assert_eq!(open(other.path(), &memory).blob(&blob).unwrap(), b"right"[..]);
    }
}
