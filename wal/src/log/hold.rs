//! Records that are placed one by one and are to be written together.

use super::Wal;

impl Wal {
    /// From here on, until as many calls of [`release_tickets`](Wal::release_tickets), the log's own thread writes nothing for
    /// those who hold tickets: what they place gathers. Whoever waits for a record, or whose write makes room, writes it all the
    /// same. To be held for as long as it takes to place some records, and no longer.
    ///
    /// ```
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// # let wal = seawall_wal::Wal::options().segment_bytes(256 << 10).disk(disk).open("/log")?;
    /// wal.hold_tickets();
    /// let tickets = [wal.commit_pipelined("one")?, wal.commit_pipelined("another")?];
    /// wal.release_tickets(); // one write
    /// for ticket in tickets {
    ///     ticket.wait()?;
    /// }
    /// # Ok::<(), seawall_wal::Error>(())
    /// ```
    pub fn hold_tickets(&self) {
        self.0.inner.signals().hold();
    }

    /// Does something while the thread for tickets is there, and no other.
    #[cfg(all(test, seawall_shuttle))]
    pub(crate) fn with_tickets_alone(&self, body: impl FnOnce()) {
        let keeper = crate::keeper::Keeper::of_tickets_alone(&self.0.inner);
        body();
        keeper.stop(&self.0.inner);
    }

    /// What was placed meanwhile is written. See [`hold_tickets`](Wal::hold_tickets).
    pub fn release_tickets(&self) {
        self.0.inner.signals().release(&self.0.inner);
    }
}
