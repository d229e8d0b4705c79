//! Opening a store: creating it if there is none, else recovering what it holds.
//!
//! ```text
//! DIR/data      superblocks, trees        (the store is there once this name is)
//! DIR/data.new  the same, while the store is being created
//! DIR/log/      anchor and segments
//! DIR/slots     who else the log is kept for, if anybody
//! ```
//!
//! *Creating*: directories; the log, first segment and then anchor, durable; both superblocks into `data.new`, synced;
//! the rename to `data`, synced. A crash before that rename leaves no store, and the next opening begins again with
//! what it finds. A log that holds records but has no data file is not a store half made but one half lost.
//!
//! *Recovering*: lock the data file before anything is read; sync the directory before a name in it is trusted; read
//! the superblock; open the log, which decides on its own tail; replay from the superblock's checkpoint on. A delta
//! that outgrows its budget on the way is folded at once, and the replay position moves with it: what the log handed
//! out is on the device, so a crash in a long recovery does not begin again from the start, and nothing is redone that is
//! in the tree: adding twice is not adding once. The superblock's *applied* position says so once more.

use crate::commit::gate::{Ack, Gate};
use crate::commit::locks::Locks;
use crate::commit::log::{CommitLog, LocalLog};
use crate::commit::patience::Patience;
use crate::commit::sequencer::Sequencer;
use crate::db::{Core, Db, Handle};
use crate::delta::{Delta, Gathered};
use crate::keyspace::Catalogue;
use crate::life::checkpoint::{FoldState, Folding, Rolling};
use crate::life::following::Following;
use crate::life::image::PROGRESS_NAME;
use crate::life::redone::{Redone, Replayed};
use crate::life::slots::file::SlotsFile;
use crate::life::slots::{self, Slots};
#[cfg(not(seawall_shuttle))]
use crate::life::{epoch, redone::fenced_by};
use crate::memory::Memory;
use crate::mutation::Mutation;
use crate::options::Options;
use crate::read::view::{Reads, View};
use crate::record::{BRANCHES, BranchRow, WriteSet, may_name_large};
use crate::stats::{Counters, Event};
use crate::sync::AtomicBool;
use crate::tree::{LargeValue, Root, Superblock, TreeStore};
use crate::{Error, Result};
use seawall_wal::disk::crashsafe;
use seawall_wal::disk::{Lock, Open};
use seawall_wal::{Disk, DiskFile, Kind, Lsn, Slice, Wal, anchor_of};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The data file.
pub(crate) const DATA_NAME: &str = "data";
pub(crate) const DATA_NEW_NAME: &str = "data.new";
pub(crate) const LOG_NAME: &str = "log";
/// A write of the log that takes so long is an event.
const SLOW_SYNC: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_secs(1) };

/// The files of a store, open and checked against each other.
pub(crate) struct Files {
    pub(crate) store: Arc<TreeStore>,
    pub(crate) root: Arc<Root>,
    pub(crate) log: Arc<dyn CommitLog>,
    pub(crate) slots: Slots,
    /// The same log, as those see it who ship it.
    #[cfg(not(seawall_shuttle))]
    pub(crate) wal: Wal,
}

impl Files {
    /// Slots are pinned before anything else can happen to the log. It is kept from `from` on.
    fn new(
        options: &Options,
        (store, root): (Arc<TreeStore>, Arc<Root>),
        wal: Wal,
        from: Lsn,
        slots: Option<SlotsFile>,
    ) -> Result<Files> {
        let log_dir = options.path.join(LOG_NAME);
        let log: Arc<dyn CommitLog> = Arc::new(LocalLog::new(wal.clone(), log_dir, from, options.read_only)?);
        let Superblock { store_id, segment_bytes, .. } = root.superblock;
        let kept = Slots::new(options, &log, store_id, segment_bytes);
        if let Some(slots) = slots {
            kept.load(slots);
        }
        Ok(Files {
            store,
            root,
            log,
            slots: kept,
            #[cfg(not(seawall_shuttle))]
            wal,
        })
    }
}

pub(crate) fn open(options: Options) -> Result<Db> {
    let opener = Opener { options: &options };
    let files = opener.open()?;
    start(options, files)
}

struct Opener<'a> {
    options: &'a Options,
}

impl Opener<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.options.path.join(name)
    }

    fn exists(&self, name: &str) -> Result<bool> {
        let path = self.path(name);
        self.options.disk.exists(&path).map_err(|source| Error::io("look for", &path, None, source))
    }

    fn open(&self) -> Result<Files> {
        if self.exists(DATA_NAME)? {
            let path = self.path(DATA_NAME);
            let how = if self.options.read_only { Open::Read } else { Open::ReadWrite };
            let file = self.open_locked(&path, how)?;
            return self.recover(file);
        }
        if self.options.create { self.create() } else { Err(self.not_there()) }
    }

    fn not_there(&self) -> Error {
        let source = io::Error::new(io::ErrorKind::NotFound, "there is no store here");
        Error::Io { op: "open", path: self.path(DATA_NAME), offset: None, source }
    }

    fn open_locked(&self, path: &Path, how: Open) -> Result<Arc<dyn DiskFile>> {
        open_locked(&*self.options.disk, path, how)
    }

    fn sync_dir(&self) -> Result<()> {
        let path = &self.options.path;
        self.options.disk.sync_dir(path).map_err(|source| Error::io("sync directory", path, None, source))
    }

    fn open_tree(&self, file: Arc<dyn DiskFile>, path: &Path) -> Result<(Arc<TreeStore>, Arc<Root>)> {
        let Options { disk, memory_budget, read_only, read_mode, .. } = self.options;
        TreeStore::open_in(*read_mode, Arc::clone(disk), file, path, *memory_budget as usize, *read_only)
    }

    fn recover(&self, file: Arc<dyn DiskFile>) -> Result<Files> {
        let path = self.path(DATA_NAME);
        let read_only = self.options.read_only;
        if !read_only {
            self.sync_dir()?;
        }
        let (store, root) = self.open_tree(file, &path)?;
        let superblock = &root.superblock;
        let replay = superblock.checkpoint_lsn;
        let damaged = |what: String| Error::Corruption {
            file: path.clone(),
            offset: superblock.generation % 2 * seawall_wal::disk::BLOCK_BYTES as u64,
            lsn: Some(replay),
            what,
        };
        let log_dir = self.path(LOG_NAME);
        if !self.exists(LOG_NAME)? {
            return Err(damaged(format!("the store's log, {}, is missing", log_dir.display())));
        }
        let wal = match self.open_log(Some(superblock)) {
            // There is a store, so this is no store that is missing.
            Err(Error::Io { source, path, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(format!("a part of the store's log, {}, is missing", path.display())));
            }
            opened => opened?,
        };
        if wal.store_id() != superblock.store_id {
            return Err(damaged("the log beside it belongs to another store".into()));
        }
        if replay < wal.first_lsn() {
            return Err(damaged(format!(
                "the log begins at {}, behind the position that this superblock needs: a newer one is lost",
                wal.first_lsn()
            )));
        }
        let slots = slots::read(self.options, superblock.store_id)?;
        // While it is followed, a store can go back to its older superblock, for which that one's log is kept.
        let is_followed = slots.as_ref().is_some_and(SlotsFile::is_any_alive);
        let from =
            if is_followed { store.reaches().1.replay.min(replay).max(wal.first_lsn()) } else { replay };
        Files::new(self.options, (store, root), wal, from, slots)
    }

    /// For a store that is there, its superblock says what the log must be and where replay begins. For one that is
    /// being made, the log is made, or taken as an attempt before this one left it.
    fn open_log(&self, of: Option<&Superblock>) -> Result<Wal> {
        let mut log = Wal::options()
            .segment_bytes(of.map_or(self.options.segment_bytes, |superblock| superblock.segment_bytes))
            .durability(self.options.durability)
            .io(self.options.io)
            .disk(Arc::clone(&self.options.disk))
            .runtime(Arc::clone(&self.options.runtime))
            .read_only(self.options.read_only)
            .replica(self.options.replica)
            .background(self.options.background)
            .create(of.is_none());
        log = log.probe(self.options.probe).mutation(self.options.log_mutation);
        if let Some(way) = self.options.durable_write {
            log = log.durable_write(way);
        }
        if self.options.events.has_listener() {
            let events = Arc::clone(&self.options.events);
            let tell = move |took| events.tell(Event::SlowSync { took });
            log = log.on_slow_write(SLOW_SYNC, Arc::new(tell));
        }
        if let Some(superblock) = of {
            let replay = superblock.checkpoint_lsn;
            log = log.store_id(superblock.store_id).start(replay, replay.max(superblock.applied_lsn));
        }
        Ok(log.open(self.path(LOG_NAME))?)
    }

    fn create(&self) -> Result<Files> {
        let (disk, dir) = (&self.options.disk, &self.options.path);
        crashsafe::create_dir_all(&**disk, dir)
            .map_err(|source| Error::io("create directory", dir, None, source))?;
        self.refuse_foreign()?;
        let file = self.begin_data()?;
        if self.exists(DATA_NAME)? {
            // Another has made it meanwhile, and `file` is what it renamed, or a leftover.
            drop(file);
            return self.open();
        }
        let wal = self.open_log(None)?;
        if wal.recovery().records > 0 {
            return Err(Error::Corruption {
                file: self.path(DATA_NAME),
                offset: 0,
                lsn: Some(wal.first_lsn()),
                what: format!("the data file is missing, but its log in {} holds commits", dir.display()),
            });
        }
        let start = wal.barrier()?;
        let first = Superblock {
            store_id: wal.store_id(),
            checkpoint_lsn: start,
            segment_bytes: wal.segment_bytes(),
            created_us: self.options.runtime.wall_clock_us(),
            ..Superblock::default()
        };
        let (new_path, path) = (self.path(DATA_NEW_NAME), self.path(DATA_NAME));
        file.set_len(0).map_err(|source| Error::io("cut", &new_path, Some(0), source))?;
        if self.options.has(Mutation::CreateInPlace) {
            crashsafe::rename(&**disk, &new_path, &path)
                .map_err(|source| Error::io("rename", &new_path, None, source))?;
            TreeStore::create(Arc::clone(&file), &path, &first)?;
            let tree = self.open_tree(file, &path)?;
            return Files::new(self.options, tree, wal, start, None);
        }
        TreeStore::create(Arc::clone(&file), &new_path, &first)?;
        crashsafe::rename(&**disk, &new_path, &path)
            .map_err(|source| Error::io("rename", &new_path, None, source))?;
        let tree = self.open_tree(file, &path)?;
        Files::new(self.options, tree, wal, start, None)
    }

    /// `data.new`, locked: of several that create the same store, one goes on.
    fn begin_data(&self) -> Result<Arc<dyn DiskFile>> {
        let path = self.path(DATA_NEW_NAME);
        let how = if self.exists(DATA_NEW_NAME)? { Open::ReadWrite } else { Open::CreateNew };
        match self.open_locked(&path, how) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                self.open_locked(&path, Open::ReadWrite)
            }
            opened => opened,
        }
    }

    fn refuse_foreign(&self) -> Result<()> {
        let dir = &self.options.path;
        let names = self.options.disk.list(dir).map_err(|source| Error::io("list", dir, None, source))?;
        let is_own = |name: &String| [DATA_NAME, DATA_NEW_NAME, LOG_NAME].contains(&name.as_str());
        match names.iter().find(|name| !is_own(name)) {
            Some(name) if name == PROGRESS_NAME => Err(Error::BadInput(format!(
                "{} holds an image of a store that has not arrived as a whole",
                dir.display()
            ))),
            Some(name) => Err(Error::BadInput(format!(
                "{} holds {name}, which is not part of a store; use an empty directory",
                dir.display()
            ))),
            None => Ok(()),
        }
    }
}

/// Opens a data file, and locks it: for reading beside other readers, else alone.
pub(crate) fn open_locked(disk: &dyn Disk, path: &Path, how: Open) -> Result<Arc<dyn DiskFile>> {
    let file = disk.open(path, how).map_err(|source| Error::io("open", path, None, source))?;
    let lock = if how == Open::Read { Lock::Shared } else { Lock::Exclusive };
    if file.try_lock(lock).map_err(|source| Error::io("lock", path, None, source))? {
        Ok(file)
    } else {
        Err(Error::Locked { path: path.to_owned(), pid: disk.lock_holder(path) })
    }
}

/// Replays the log, and sets everything going.
pub(crate) fn start(mut options: Options, files: Files) -> Result<Db> {
    options.go_by_segments_of(files.root.superblock.segment_bytes);
    let runtime = Arc::clone(&options.runtime);
    let (replay, applied) = (files.root.superblock.checkpoint_lsn, files.root.superblock.applied_lsn);
    let catalogue = Arc::new(Catalogue::new(runtime.random(), files.root.superblock.next_keyspace));
    let view = View { active: Arc::new(Delta::default()), frozen: Vec::new(), root: files.root };
    let reads = Arc::new(Reads::new(Arc::clone(&files.store), view, replay, Arc::clone(&runtime)));
    if let Some(mutation) = options.mutation {
        reads.err_by(mutation);
    }
    let is_shipped = options.replica || is_replicas_to_read(&options)?;
    let log = files.log;
    let memory = Arc::new(Memory::new(options.memory_budget));
    files.store.set_buffer_bytes(memory.buffers());
    // While the log is replayed, the deltas are about to take all that they may.
    if let Some(room) = memory.cache_room(memory.replay_max(0), 0) {
        files.store.set_cache_bytes(room);
    }
    let replaying = Replay {
        options: &options,
        memory: &memory,
        reads: &reads,
        catalogue: &catalogue,
        log: &log,
        slots: &files.slots,
        is_shipped,
        applied,
    };
    #[cfg(not(seawall_shuttle))]
    epoch::begin_if_due(&options, &files.wal)?;
    let replayed = replaying.run(replay)?;
    let end = replayed.end;
    let shown = if replayed.is_hidden() { replay.max(applied) } else { end };
    reads.set_visible(shown);
    if !options.read_only {
        // Better refused now than at the first checkpoint.
        reads.check_compressions(end)?;
    }
    let gate = Arc::new(Gate::new(options.ack_timeout));
    let sequencer = Sequencer::new(
        Arc::clone(&log),
        gate,
        Arc::clone(&runtime),
        Arc::clone(&reads),
        Arc::clone(&catalogue),
    );
    sequencer.err_by(options.mutation);
    if !options.read_only {
        replayed.hide(&sequencer, &options, shown);
    }
    #[cfg(not(seawall_shuttle))]
    sequencer.begin_at(if replayed.is_hidden() { reads.visible() } else { files.wal.tail().whole_end });
    #[cfg(not(seawall_shuttle))]
    if let Some(epoch) = fenced_by(&files.wal).filter(|_| !options.read_only && !options.replica) {
        sequencer.fence(epoch);
    }
    if options.has(Mutation::ReuseEarly) {
        files.store.reuse_early();
    }
    if options.has(Mutation::RepeatUnwritten) {
        files.store.leave_unrepeated();
    }
    if options.has(Mutation::PunchEarly) {
        files.store.punch_early();
    }
    if options.has(Mutation::ReuseMapped) {
        files.store.reuse_mapped();
    }
    if options.has(Mutation::SyncEarly) {
        files.store.sync_early();
    }
    if options.has(Mutation::StreamUnsynced) {
        files.store.stream_unsynced();
    }
    if options.has(Mutation::UnpackUnverified) {
        files.store.unpack_unverified();
    }
    if let Some(mutation) = options.mutation {
        files.store.err_in_runs(mutation);
    }
    let core = Arc::new(Core {
        following: Following::new(&runtime, replayed.in_doubt),
        patience: Patience::new(Arc::clone(&runtime), Arc::clone(&sequencer)),
        locks: Locks::new(Arc::clone(&runtime)),
        fold: FoldState::new(&runtime),
        runtime,
        log,
        sequencer,
        reads,
        store: files.store,
        catalogue,
        memory,
        slots: files.slots,
        counters: Counters::default(),
        is_closed: AtomicBool::new(false),
        is_replica: AtomicBool::new(options.replica),
        #[cfg(not(seawall_shuttle))]
        wal: files.wal,
        options,
    });
    core.share_memory(core.reads.memory());
    if !core.is_replica() {
        core.restore_branches(if core.options.read_only { shown } else { end })?;
    }
    let handle = Arc::new(Handle::new(Arc::clone(&core)));
    if core.options.background {
        let starting = |source| Error::io("start a thread for", &core.options.path, None, source);
        core.options.events.start().map_err(starting)?;
        let (folder, pace) = (Arc::clone(&core), Arc::clone(&core.fold.pace));
        let spawn = |name, body| -> Result<()> {
            let thread = core.runtime.spawn(name, body);
            handle.threads.lock().push(thread.map_err(starting)?);
            Ok(())
        };
        spawn("seawall-pace", Box::new(move || pace.give_turns()))?;
        spawn("seawall-fold", Box::new(move || folder.fold_in_background()))?;
    }
    Ok(Db::new(handle))
}

/// Whether a replica's store is opened to be read: how far its primary has shown what is in the log is not known then.
fn is_replicas_to_read(options: &Options) -> Result<bool> {
    Ok(options.read_only && anchor_of(&*options.disk, &options.path.join(LOG_NAME))?.is_replica)
}

/// What names the streamed values of each prepared transaction, by its xid's key.
pub(crate) type InDoubt = BTreeMap<Vec<u8>, Vec<Slice>>;

/// Redo: every transaction in the log from the checkpoint on, in order.
pub(crate) struct Replay<'a> {
    pub(crate) options: &'a Options,
    pub(crate) memory: &'a Memory,
    pub(crate) reads: &'a Arc<Reads>,
    pub(crate) catalogue: &'a Arc<Catalogue>,
    pub(crate) log: &'a Arc<dyn CommitLog>,
    pub(crate) slots: &'a Slots,
    /// The log is another store's, which it has shipped; whoever opens it to read does not know how far that one has shown it.
    pub(crate) is_shipped: bool,
    /// What is below is in the tree.
    pub(crate) applied: Lsn,
}

impl Replay<'_> {
    /// The position up to which everything is there.
    fn run(&self, from: Lsn) -> Result<Replayed> {
        // What is not visible is not folded.
        let mut is_full = self.options.read_only || self.hides();
        let mut ends = VecDeque::new();
        let mut active = Arc::clone(&self.reads.view().active);
        let mut gathered = Gathered::default();
        let mut frame = from;
        let own_max = self.options.replay_bytes_max;
        let bytes_max = own_max.unwrap_or_else(|| self.memory.replay_max(self.reads.store.space_map_bytes()));
        let mut has_looked_ahead = false;
        let mut in_doubt = self.values_in_doubt()?;
        self.log.replay(from, &mut |record| {
            // A replay position is a frame's beginning.
            let is_boundary = std::mem::replace(&mut frame, record.frame) < record.frame;
            let bytes = active.bytes() + gathered.bytes();
            if is_boundary && !is_full && bytes >= bytes_max {
                active.absorb(&mut gathered);
                // S4: what later records name must not be allocated.
                if !std::mem::replace(&mut has_looked_ahead, true) {
                    self.set_aside_from(record.frame)?;
                }
                match self.fold(record.frame, from) {
                    // A store on a full disk opens and reads: the rest stays in memory until there is room.
                    Err(Error::NoSpace) => is_full = true,
                    folded => folded?,
                }
                active = Arc::clone(&self.reads.view().active);
            }
            if let Some(set) = self.decode(Redone::of(&record), &mut in_doubt)? {
                active.gather(&set, record.lsn, &mut gathered);
            }
            if self.hides() && record.lsn >= self.applied {
                if !self.options.replica {
                    // The last one alone: they are shown together, or never.
                    ends.clear();
                }
                ends.push_back(record.end);
            }
            if active.is_worth_absorbing(&gathered) {
                active.absorb(&mut gathered);
            }
            Ok(())
        })?;
        active.absorb(&mut gathered);
        let end = if self.is_shipped {
            ends.back().copied().unwrap_or(from)
        } else if self.options.read_only {
            self.log.next_lsn()
        } else {
            self.log.barrier()?
        };
        Ok(Replayed { end: end.max(from).max(self.applied), ends, frame, in_doubt })
    }

    /// Whether what is redone is not to be shown yet.
    fn hides(&self) -> bool {
        self.is_shipped || (!self.options.read_only && self.options.ack != Ack::Local)
    }

    /// The streamed values of what the tree has in doubt. They are set aside before anything is allocated (S4).
    fn values_in_doubt(&self) -> Result<InDoubt> {
        let (store, root) = (&self.reads.store, Arc::clone(&self.reads.view().root));
        let mut in_doubt = InDoubt::new();
        let mut rows = store.cursor(&root, BRANCHES);
        while rows.advance()? {
            let damaged = |what| Error::Corruption {
                file: store.path().to_owned(),
                offset: 0,
                lsn: None,
                what: format!("a prepared transaction: {what}"),
            };
            match BranchRow::decode(&rows.value()?) {
                Some(BranchRow::Prepared(row)) => {
                    self.doubt(rows.key(), &row.set, &mut in_doubt, damaged)?;
                }
                Some(BranchRow::Completed(_)) => {}
                None => return Err(damaged("what is kept of it is damaged".to_owned())),
            }
        }
        Ok(in_doubt)
    }

    /// What is prepared is in doubt.
    fn doubt(
        &self,
        xid: &[u8],
        set: &WriteSet,
        in_doubt: &mut InDoubt,
        damaged: impl Fn(String) -> Error,
    ) -> Result<()> {
        let values: Vec<Slice> = set.large().collect();
        if !values.is_empty() {
            self.set_aside_prepared(&values, damaged)?;
            in_doubt.insert(xid.to_vec(), values);
        }
        Ok(())
    }

    fn set_aside_prepared(&self, values: &[Slice], damaged: impl Fn(String) -> Error) -> Result<()> {
        for value in values.iter().filter(|_| !self.options.has(Mutation::RestoreUnreserved)) {
            let value = LargeValue::decode(value.clone()).map_err(&damaged)?;
            self.reads.store.set_aside(&value)?;
        }
        Ok(())
    }

    /// A transaction votes in this record, or ends in it; with one that is rolled back its streamed values are given up.
    fn follow_branch(&self, record: Redone<'_>, set: WriteSet, in_doubt: &mut InDoubt) -> Result<WriteSet> {
        let (xid, row) = match set.branch() {
            Some((xid, row)) if record.lsn >= self.applied => (xid.to_vec(), row),
            _ => return Ok(set),
        };
        match row {
            BranchRow::Prepared(row) => {
                self.doubt(&xid, &row.set, in_doubt, |flaw| self.damaged(record, flaw))?;
                Ok(set)
            }
            BranchRow::Completed(completion) => {
                let values = in_doubt.remove(&xid).unwrap_or_default();
                Ok(if completion.applies() { set } else { set.giving_up(values) })
            }
        }
    }

    /// What a record changes, if it is to be applied.
    pub(crate) fn decode(&self, record: Redone<'_>, in_doubt: &mut InDoubt) -> Result<Option<WriteSet>> {
        let damaged = |what| self.damaged(record, what);
        if record.kind == Kind::EPOCH {
            return Ok(None);
        }
        if record.kind != Kind::TRANSACTION {
            return Err(damaged(format!("a record of kind {}, which no transaction is", record.kind.0)));
        }
        let set =
            WriteSet::decode(record.payload.to_vec()).map_err(|malformed| damaged(malformed.to_string()))?;
        for id in set.created() {
            self.catalogue.note_used(*id);
        }
        if self.hides() && record.lsn >= self.applied && !self.catalogue.followed(&set, record.lsn) {
            return Err(damaged("what it says of a keyspace is damaged".into()));
        }
        if self.is_shipped {
            self.refuse_large(record, &set, in_doubt)?;
        }
        self.set_aside(record, &set)?;
        self.note_outside(record, &set);
        let set = self.follow_branch(record, set, in_doubt)?;
        let is_new = record.lsn >= self.applied || self.options.has(Mutation::RedoApplied);
        Ok(is_new.then_some(set))
    }

    /// What names extents of the primary's file names nothing here, unless they came with the image: those of what was
    /// prepared then.
    fn refuse_large(&self, record: Redone<'_>, set: &WriteSet, in_doubt: &InDoubt) -> Result<()> {
        let is_here = |(xid, row)| matches!(row, BranchRow::Completed(_)) && in_doubt.contains_key(xid);
        if set.branch().is_some_and(is_here) {
            return Ok(());
        }
        let is_voted = |(_, row)| matches!(row, BranchRow::Prepared(row) if row.set.large().next().is_some());
        if record.lsn < self.applied || (set.large().next().is_none() && !set.branch().is_some_and(is_voted))
        {
            return Ok(());
        }
        let what = "the record there names a streamed value that is not in the log".to_owned();
        Err(Error::NeedsImage { to: record.lsn, what })
    }

    fn damaged(&self, record: Redone<'_>, what: String) -> Error {
        Error::Corruption {
            file: self.log.dir().to_owned(),
            offset: record.lsn.0,
            lsn: Some(record.lsn),
            what,
        }
    }

    /// Sets aside what a record names, unless it is in the tree already.
    fn set_aside(&self, record: Redone<'_>, set: &WriteSet) -> Result<()> {
        let is_done = record.lsn < self.applied;
        if is_done || self.options.has(Mutation::RedoUnreserved) {
            return Ok(());
        }
        for value in set.large() {
            let value = LargeValue::decode(value).map_err(|flaw| self.damaged(record, flaw))?;
            self.reads.store.set_aside(&value)?;
        }
        Ok(())
    }

    /// L4.
    fn note_outside(&self, record: Redone<'_>, set: &WriteSet) {
        let in_vote = match set.branch() {
            Some((_, BranchRow::Prepared(row))) => row.set.large().next().is_some(),
            _ => false,
        };
        if in_vote || set.large().next().is_some() {
            self.slots.note_outside(Lsn(record.lsn.0.saturating_add(record.payload.len() as u64)));
        }
    }

    /// Sets aside what the records from there on name.
    fn set_aside_from(&self, from: Lsn) -> Result<()> {
        self.log.replay(from, &mut |record| {
            let record = Redone::of(&record);
            if record.kind != Kind::TRANSACTION || !may_name_large(record.payload) {
                return Ok(());
            }
            let set = WriteSet::decode(record.payload.to_vec());
            let set = set.map_err(|malformed| self.damaged(record, malformed.to_string()))?;
            if let Some((_, BranchRow::Prepared(row))) = set.branch().filter(|_| record.lsn >= self.applied) {
                let values: Vec<Slice> = row.set.large().collect();
                self.set_aside_prepared(&values, |flaw| self.damaged(record, flaw))?;
            }
            self.set_aside(record, &set)
        })
    }

    /// Memory is over: what was replayed so far goes into the tree.
    fn fold(&self, end: Lsn, from: Lsn) -> Result<()> {
        let view = self.reads.view();
        view.active.freeze(end);
        self.reads.froze(Arc::clone(&view.active), Arc::new(Delta::default()));
        self.reads.set_visible(end);
        let next_keyspace = self.catalogue.next_id();
        let replay = if self.options.has(Mutation::RedoApplied) { from } else { end };
        let is_followed = self.slots.is_any();
        let (newer, older) = self.reads.store.reaches();
        if is_followed && older != newer {
            // L5, but for memory.
            let floor = self.slots.rewind_floor().unwrap_or(newer.covered);
            self.options.events.tell(Event::RewindGivenUp { floor, checkpoint: newer.covered });
        }
        let mut how = Folding {
            on_stage: None,
            on_change: &mut || {},
            on_row: &mut |_| {},
            on_plan: &mut |_| {},
            repeats: &|_| !is_followed,
            spilling: self.options.spilling,
            rolling: Rolling::OfChanged,
            has_rolled: false,
            has_finished: false,
        };
        crate::life::checkpoint::fold_below(self.reads, end, &mut how, |superblock| {
            superblock.checkpoint_lsn = replay;
            superblock.applied_lsn = end;
            superblock.next_keyspace = next_keyspace;
        })
    }
}
