//! A ledger over a database: one thread writes, and takes all decisions that wait into one transaction, so that
//! the disk is waited for once. Another connection reads.

use super::decide::{Limits, decide, frontier};
use super::{Database, Head, StateError};
use crate::config::Quotas;
use crate::judge::Judged;
use crate::ledger::{Ledger, Settled, Unavailable};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use vault_attest::tlog::tree::Plan;
use vault_attest::tlog::{Hash, LogSigner};

/// Most decisions in a transaction.
const BATCH: usize = 256;
/// Most decisions that wait.
const QUEUE: usize = 1024;

type Answer = Result<Settled, Unavailable>;

/// Decides and logs in a database.
pub struct StateLedger {
    queue: SyncSender<(Judged, SyncSender<Answer>)>,
    reader: Mutex<Box<dyn Database>>,
}

impl StateLedger {
    /// Over two connections to one database. Fails if the log in it is not the one that this key signed.
    pub fn start(
        mut writer: Box<dyn Database>,
        reader: Box<dyn Database>,
        signer: LogSigner,
        quotas: Quotas,
    ) -> Result<Self, StateError> {
        let mut first = writer.begin()?;
        let known = frontier(&mut *first, &signer)?;
        if first.head()? == Head::default() {
            let checkpoint = signer.sign(0, known.root());
            first.set_head(&Head { size: 0, checkpoint })?;
        }
        first.commit()?;
        let (queue, waiting) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("release-log".into());
        thread
            .spawn(move || write(&mut *writer, &signer, &quotas, known.size(), &waiting))
            .map_err(|e| StateError::Database(format!("no thread for the log: {e}")))?;
        Ok(Self { queue, reader: Mutex::new(reader) })
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&mut dyn super::Transaction) -> Result<T, StateError>,
    ) -> Result<T, Unavailable> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let unavailable = |e: StateError| Unavailable(e.to_string());
        let mut transaction = reader.begin_read().map_err(unavailable)?;
        read(&mut *transaction).map_err(unavailable)
    }
}

/// The writing thread: until nobody can ask any more.
fn write(
    database: &mut dyn Database,
    signer: &LogSigner,
    quotas: &Quotas,
    mut size: u64,
    waiting: &Receiver<(Judged, SyncSender<Answer>)>,
) {
    while let Ok(first) = waiting.recv() {
        let more = std::iter::from_fn(|| waiting.try_recv().ok()).take(BATCH - 1);
        let (batch, askers): (Vec<_>, Vec<_>) = std::iter::once(first).chain(more).unzip();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let count = batch.len() as u64;
        match check_growth(database, size).and_then(|()| decide(database, signer, &Limits { quotas, now_s }, batch)) {
            Ok(settled) => {
                size += count; // with replicas there are more: this is what the log cannot fall below
                for (asker, settled) in askers.iter().zip(settled) {
                    let _ = asker.send(Ok(settled));
                }
            }
            Err(error) => {
                let why = Unavailable(error.to_string());
                for asker in &askers {
                    let _ = asker.send(Err(why.clone()));
                }
            }
        }
    }
}

/// `[L-5]`: the log in the database never gets shorter while the broker runs.
fn check_growth(database: &mut dyn Database, seen: u64) -> Result<(), StateError> {
    use vault_attest::{Refusal, Step};
    let size = database.begin_read()?.head()?.size;
    if size >= seen {
        return Ok(());
    }
    let (expected, found) = (format!("at least {seen} entries"), format!("{size}"));
    Err(Refusal::new(Step::L(5), "release log", expected, found).into())
}

impl Ledger for StateLedger {
    fn settle(&self, judged: Judged) -> Answer {
        let stopped = || Unavailable("the log's thread has stopped".into());
        let (asker, answer) = sync_channel(1);
        self.queue.send((judged, asker)).map_err(|_| stopped())?;
        answer.recv().map_err(|_| stopped())?
    }

    fn checkpoint(&self) -> Result<String, Unavailable> {
        self.read(|transaction| Ok(transaction.head()?.checkpoint))
    }

    fn consistency(&self, from: u64, to: u64) -> Result<Option<Vec<Hash>>, Unavailable> {
        self.read(|transaction| {
            let size = transaction.head()?.size;
            let Some(plan) = Plan::consistency(from, to).filter(|_| to <= size) else { return Ok(None) };
            let nodes = transaction.nodes(&plan.positions())?;
            plan.finish(&nodes).map(Some).ok_or(StateError::Row("tree"))
        })
    }

    fn size(&self) -> Result<u64, Unavailable> {
        self.read(|transaction| Ok(transaction.head()?.size))
    }
}
