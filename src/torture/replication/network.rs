//! The network: messages on their way, and connections that begin and end.

use super::{Connection, Violation, World};
use seawall_replication::message::Message;
use seawall_replication::ship::{primary, replica};
use std::sync::Arc;

impl World {
    /// Some message arrives, or is lost, or arrives and is still on its way.
    pub(super) fn deliver(&mut self) -> Result<(), Violation> {
        if self.network.is_empty() {
            return self.pass_some_time();
        }
        // Mostly in order, as a stream has it.
        let at = if self.rng.chance(4, 5) { 0 } else { self.rng.below(self.network.len() as u64) as usize };
        let Some(message) = self.network.get(at).cloned() else { return Ok(()) };
        if self.rng.below(100) < self.repeats {
            self.hit("message repeated");
        } else {
            self.network.remove(at);
        }
        if !self.connections.contains_key(&message.0) {
            return Ok(());
        }
        if self.is_cut_off(&message) || self.rng.below(100) < self.loss {
            self.hit("message lost");
            if self.rng.chance(1, 4) {
                self.hit("connection lost");
                return self.drop_connection(message.0);
            }
            return Ok(());
        }
        if at > 0 {
            self.hit("message overtook another");
        }
        self.arrive(message)
    }

    pub(super) fn is_cut_off(&self, message: &(u64, bool, Message)) -> bool {
        self.connections.get(&message.0).is_some_and(|between| {
            let way = (between.replica, between.upstream);
            self.cut.contains(&if message.1 { way } else { (way.1, way.0) })
        })
    }

    /// All follow the primary, from now on.
    pub(super) fn redirect_all(&mut self) -> Result<(), Violation> {
        let primary = self.primary;
        self.nodes.values_mut().for_each(|node| node.upstream = primary);
        let elsewhere = self.connections.iter().filter(|(_, between)| between.upstream != primary);
        let elsewhere: Vec<u64> = elsewhere.map(|(connection, _)| *connection).collect();
        elsewhere.into_iter().try_for_each(|connection| self.drop_connection(connection))
    }

    pub(super) fn arrive(
        &mut self,
        (connection, is_up, message): (u64, bool, Message),
    ) -> Result<(), Violation> {
        let Some(between) = self.connections.get(&connection) else { return Ok(()) };
        let (replica, upstream) = (between.replica, between.upstream);
        self.hit("message delivered");
        self.pass(20);
        self.note(connection << 1 ^ u64::from(is_up) ^ self.now << 8);
        self.say(|| match is_up {
            true => format!("n{replica} -> n{upstream}: {message:?}"),
            false => format!("n{upstream} -> n{replica}: {message:?}"),
        });
        let to = if is_up { upstream } else { replica };
        let now = self.clock(to);
        let runtime = Arc::clone(&self.runtime);
        let Some(up) = self.nodes.get_mut(&to).and_then(|node| node.up.as_mut()) else { return Ok(()) };
        if is_up {
            up.lead(now, connection, &runtime, primary::Input::Message(message))?;
        } else if let Some((session, of)) = up.follower.as_ref().and_then(|following| following.connection)
            && of == connection
        {
            up.follow(now, replica::Input::Message { session, message })?;
        }
        self.collect()
    }

    /// What machines have for the network, and new connections.
    pub(super) fn collect(&mut self) -> Result<(), Violation> {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let upstream = node.upstream;
            let Some(up) = node.up.as_mut() else { continue };
            self.network.append(&mut up.out);
            let counts = std::mem::take(&mut up.counts);
            let dialling = up.follower.as_mut().and_then(|following| following.dialling.take());
            counts.into_iter().for_each(|name| self.hit(name));
            if let Some(session) = dialling {
                self.dial(id, upstream, session)?;
            }
        }
        Ok(())
    }

    pub(super) fn dial(&mut self, id: u64, upstream: u64, session: u64) -> Result<(), Violation> {
        let is_cut = self.cut.contains(&(id, upstream)) || self.cut.contains(&(upstream, id));
        let (now, there) = (self.clock(id), self.clock(upstream));
        let is_old = self.deposed.contains_key(&upstream);
        let host = self.nodes.get_mut(&upstream).filter(|_| !is_cut && upstream != id);
        let settings = host.as_ref().map(|host| host.session());
        let (Some(host), Some(settings)) = (host.and_then(|host| host.up.as_mut()), settings) else {
            if let Some(up) = self.nodes.get_mut(&id).and_then(|node| node.up.as_mut()) {
                up.follow(now, replica::Input::Lost { session })?;
            }
            return Ok(());
        };
        let connection = self.next_connection;
        self.next_connection += 1;
        host.accept(there, connection, settings);
        let is_cascade = host.shipping.is_replica();
        self.connections.insert(connection, Connection { replica: id, upstream });
        if is_cascade {
            self.hit("followed a replica");
        } else if is_old {
            self.hit("dialled one that another has taken the place of");
        }
        if let Some(up) = self.nodes.get_mut(&id).and_then(|node| node.up.as_mut()) {
            up.connected(now, session, connection)?;
        }
        self.collect()
    }

    pub(super) fn drop_connection(&mut self, connection: u64) -> Result<(), Violation> {
        let Some(Connection { replica, upstream }) = self.connections.remove(&connection) else {
            return Ok(());
        };
        let runtime = Arc::clone(&self.runtime);
        let (there, now) = (self.clock(upstream), self.clock(replica));
        self.network.retain(|(of, ..)| *of != connection);
        if let Some(up) = self.nodes.get_mut(&upstream).and_then(|node| node.up.as_mut()) {
            up.lead(there, connection, &runtime, primary::Input::Lost)?;
        }
        if let Some(up) = self.nodes.get_mut(&replica).and_then(|node| node.up.as_mut())
            && let Some((session, of)) = up.follower.as_ref().and_then(|following| following.connection)
            && of == connection
        {
            if let Some(following) = up.follower.as_mut() {
                following.connection = None;
            }
            up.follow(now, replica::Input::Lost { session })?;
        }
        self.collect()
    }

    pub(super) fn drop_connections_of_the_down(&mut self) -> Result<(), Violation> {
        let is_down = |id: &u64| self.nodes.get(id).is_none_or(|node| node.up.is_none());
        let gone: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, between)| is_down(&between.replica) || is_down(&between.upstream))
            .map(|(connection, _)| *connection)
            .collect();
        gone.into_iter().try_for_each(|connection| self.drop_connection(connection))
    }
}
