//! The specifications, each with the names of its actions.
#![allow(dead_code, reason = "each test uses its part")]

use stateright::{Model, Property};

/// A resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rm {
    Working,
    Prepared,
    Committed,
    Aborted,
}

pub fn consistent(rms: &[Rm]) -> bool {
    !(rms.contains(&Rm::Committed) && rms.contains(&Rm::Aborted))
}

pub fn can_commit(rms: &[Rm]) -> bool {
    rms.iter().all(|rm| matches!(rm, Rm::Prepared | Rm::Committed))
}

/// `TCommit.tla`: what atomic commit is.
pub struct TCommit {
    pub rms: usize,
}

/// Prepare and Decide, by resource manager and what it becomes.
pub fn tcommit_allows(rms: &[Rm], at: usize, to: Rm) -> bool {
    match (rms[at], to) {
        (Rm::Working, Rm::Prepared) => true,
        (Rm::Prepared, Rm::Committed) => can_commit(rms),
        (Rm::Working | Rm::Prepared, Rm::Aborted) => !rms.contains(&Rm::Committed),
        _ => false,
    }
}

impl Model for TCommit {
    type State = Vec<Rm>;
    type Action = (usize, Rm);

    fn init_states(&self) -> Vec<Vec<Rm>> {
        vec![vec![Rm::Working; self.rms]]
    }

    fn actions(&self, state: &Vec<Rm>, actions: &mut Vec<(usize, Rm)>) {
        for at in 0..self.rms {
            let all = [Rm::Prepared, Rm::Committed, Rm::Aborted];
            actions
                .extend(all.map(|to| (at, to)).into_iter().filter(|&(at, to)| tcommit_allows(state, at, to)));
        }
    }

    fn next_state(&self, state: &Vec<Rm>, (at, to): (usize, Rm)) -> Option<Vec<Rm>> {
        let mut next = state.clone();
        next[at] = to;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<TCommit>> {
        vec![
            Property::always("consistent", |_, state: &Vec<Rm>| consistent(state)),
            Property::sometimes("commits", |_, state: &Vec<Rm>| state.iter().all(|rm| *rm == Rm::Committed)),
        ]
    }
}

/// `TwoPhase.tla`.
pub struct TwoPhase {
    pub rms: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tm {
    Init,
    Committed,
    Aborted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TwoPhaseState {
    pub rms: Vec<Rm>,
    pub tm: Tm,
    pub tm_prepared: Vec<bool>,
    pub said_prepared: Vec<bool>,
    pub said_commit: bool,
    pub said_abort: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TwoPhaseAct {
    TmCommit,
    TmAbort,
    TmRcvPrepared(usize),
    RmPrepare(usize),
    RmChooseToAbort(usize),
    RmRcvCommit(usize),
    RmRcvAbort(usize),
}

impl TwoPhaseState {
    pub fn new(rms: usize) -> TwoPhaseState {
        TwoPhaseState {
            rms: vec![Rm::Working; rms],
            tm: Tm::Init,
            tm_prepared: vec![false; rms],
            said_prepared: vec![false; rms],
            said_commit: false,
            said_abort: false,
        }
    }

    /// None if the action is not enabled.
    pub fn act(&self, act: TwoPhaseAct) -> Option<TwoPhaseState> {
        let mut next = self.clone();
        let enabled = match act {
            TwoPhaseAct::TmCommit => self.tm == Tm::Init && self.tm_prepared.iter().all(|prepared| *prepared),
            TwoPhaseAct::TmAbort => self.tm == Tm::Init,
            TwoPhaseAct::TmRcvPrepared(rm) => self.tm == Tm::Init && self.said_prepared[rm],
            TwoPhaseAct::RmPrepare(rm) | TwoPhaseAct::RmChooseToAbort(rm) => self.rms[rm] == Rm::Working,
            TwoPhaseAct::RmRcvCommit(_) => self.said_commit,
            TwoPhaseAct::RmRcvAbort(_) => self.said_abort,
        };
        match act {
            TwoPhaseAct::TmCommit => (next.tm, next.said_commit) = (Tm::Committed, true),
            TwoPhaseAct::TmAbort => (next.tm, next.said_abort) = (Tm::Aborted, true),
            TwoPhaseAct::TmRcvPrepared(rm) => next.tm_prepared[rm] = true,
            TwoPhaseAct::RmPrepare(rm) => (next.rms[rm], next.said_prepared[rm]) = (Rm::Prepared, true),
            TwoPhaseAct::RmRcvCommit(rm) => next.rms[rm] = Rm::Committed,
            TwoPhaseAct::RmChooseToAbort(rm) | TwoPhaseAct::RmRcvAbort(rm) => next.rms[rm] = Rm::Aborted,
        }
        enabled.then_some(next)
    }
}

impl Model for TwoPhase {
    type State = TwoPhaseState;
    type Action = TwoPhaseAct;

    fn init_states(&self) -> Vec<TwoPhaseState> {
        vec![TwoPhaseState::new(self.rms)]
    }

    fn actions(&self, _: &TwoPhaseState, actions: &mut Vec<TwoPhaseAct>) {
        actions.extend([TwoPhaseAct::TmCommit, TwoPhaseAct::TmAbort]);
        for rm in 0..self.rms {
            actions.extend([
                TwoPhaseAct::TmRcvPrepared(rm),
                TwoPhaseAct::RmPrepare(rm),
                TwoPhaseAct::RmChooseToAbort(rm),
                TwoPhaseAct::RmRcvCommit(rm),
                TwoPhaseAct::RmRcvAbort(rm),
            ]);
        }
    }

    fn next_state(&self, state: &TwoPhaseState, act: TwoPhaseAct) -> Option<TwoPhaseState> {
        state.act(act)
    }

    fn properties(&self) -> Vec<Property<TwoPhase>> {
        vec![
            Property::always("consistent", |_, state: &TwoPhaseState| consistent(&state.rms)),
            Property::sometimes("commits", |_, state: &TwoPhaseState| {
                state.rms.iter().all(|rm| *rm == Rm::Committed)
            }),
        ]
    }
}

/// `PaxosCommit.tla` for two resource managers, three acceptors and ballots {0, 1}.
pub struct PaxosCommit;

pub const RMS: usize = 2;
pub const ACCEPTORS: usize = 3;
const MAJORITIES: [[usize; 2]; 3] = [[0, 1], [0, 2], [1, 2]];

/// `bal` is −1, and `val` none, as `None`.
pub type Vote = Option<(u8, bool)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PaxosState {
    pub rms: [Rm; RMS],
    /// `mbal`, and the vote, by instance and acceptor.
    pub acceptors: [[(u8, Vote); ACCEPTORS]; RMS],
    /// One bit a message.
    pub messages: u64,
}

pub enum Said {
    Commit,
    Abort,
    Phase1a(usize),
    Phase1b(usize, usize, Vote),
    Phase2a(usize, u8, bool),
    Phase2b(usize, usize, u8, bool),
}

impl Said {
    fn bit(&self) -> u64 {
        let place = match *self {
            Said::Commit => 0,
            Said::Abort => 1,
            Said::Phase1a(rm) => 2 + rm * 26,
            Said::Phase2a(rm, ballot, prepared) => {
                3 + rm * 26 + usize::from(ballot) * 2 + usize::from(prepared)
            }
            Said::Phase1b(rm, acceptor, vote) => {
                let vote = match vote {
                    None => 0,
                    Some((0, prepared)) => 1 + usize::from(prepared),
                    Some(_) => unreachable!("a ballot above 0 comes after the promise"),
                };
                7 + rm * 26 + acceptor * 3 + vote
            }
            Said::Phase2b(rm, acceptor, ballot, prepared) => {
                16 + rm * 26 + acceptor * 4 + usize::from(ballot) * 2 + usize::from(prepared)
            }
        };
        1 << place
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PaxosAct {
    RmPrepare(usize),
    RmChooseToAbort(usize),
    RmRcvCommit(usize),
    RmRcvAbort(usize),
    Phase1a(usize),
    Phase2a(usize, usize),
    DecideCommit,
    DecideAbort,
    Phase1b(usize, usize),
    Phase2b(usize, usize, u8, bool),
}

impl PaxosState {
    pub fn new() -> PaxosState {
        let acceptors = [[(0, None); ACCEPTORS]; RMS];
        PaxosState { rms: [Rm::Working; RMS], acceptors, messages: 0 }
    }

    fn said(&self, said: &Said) -> bool {
        self.messages & said.bit() != 0
    }

    fn decided(&self, rm: usize, prepared: bool) -> bool {
        let accepted = |ballot, acceptor: &usize| self.said(&Said::Phase2b(rm, *acceptor, ballot, prepared));
        (0..2).any(|ballot| MAJORITIES.iter().any(|set| set.iter().all(|a| accepted(ballot, a))))
    }

    /// What a majority's promises let a leader propose.
    fn proposal(&self, rm: usize, majority: [usize; 2]) -> Option<bool> {
        let mut highest = None;
        for acceptor in majority {
            let votes = [None, Some((0, false)), Some((0, true))];
            let promise = votes.into_iter().find(|vote| self.said(&Said::Phase1b(rm, acceptor, *vote)))?;
            highest = highest.max(promise);
        }
        Some(highest.is_some_and(|(_, prepared)| prepared))
    }

    /// None if the action is not enabled.
    pub fn act(&self, act: PaxosAct) -> Option<PaxosState> {
        let mut next = *self;
        let mut say = |said: Said| next.messages |= said.bit();
        let enabled = match act {
            PaxosAct::RmPrepare(rm) | PaxosAct::RmChooseToAbort(rm) => {
                let prepared = act == PaxosAct::RmPrepare(rm);
                say(Said::Phase2a(rm, 0, prepared));
                next.rms[rm] = if prepared { Rm::Prepared } else { Rm::Aborted };
                self.rms[rm] == Rm::Working
            }
            PaxosAct::RmRcvCommit(rm) => {
                next.rms[rm] = Rm::Committed;
                self.said(&Said::Commit)
            }
            PaxosAct::RmRcvAbort(rm) => {
                next.rms[rm] = Rm::Aborted;
                self.said(&Said::Abort)
            }
            PaxosAct::Phase1a(rm) => {
                say(Said::Phase1a(rm));
                true
            }
            PaxosAct::Phase2a(rm, majority) => {
                let value = self.proposal(rm, MAJORITIES[majority]);
                say(Said::Phase2a(rm, 1, value.unwrap_or(false)));
                let proposed = [false, true].iter().any(|value| self.said(&Said::Phase2a(rm, 1, *value)));
                value.is_some() && !proposed
            }
            PaxosAct::DecideCommit => {
                say(Said::Commit);
                (0..RMS).all(|rm| self.decided(rm, true))
            }
            PaxosAct::DecideAbort => {
                say(Said::Abort);
                (0..RMS).any(|rm| self.decided(rm, false))
            }
            PaxosAct::Phase1b(rm, acceptor) => {
                let (promised, vote) = self.acceptors[rm][acceptor];
                if !self.said(&Said::Phase1a(rm)) || promised >= 1 {
                    return None;
                }
                say(Said::Phase1b(rm, acceptor, vote));
                next.acceptors[rm][acceptor].0 = 1;
                true
            }
            PaxosAct::Phase2b(rm, acceptor, ballot, prepared) => {
                say(Said::Phase2b(rm, acceptor, ballot, prepared));
                next.acceptors[rm][acceptor] = (ballot, Some((ballot, prepared)));
                self.said(&Said::Phase2a(rm, ballot, prepared)) && self.acceptors[rm][acceptor].0 <= ballot
            }
        };
        enabled.then_some(next)
    }
}

impl Model for PaxosCommit {
    type State = PaxosState;
    type Action = PaxosAct;

    fn init_states(&self) -> Vec<PaxosState> {
        vec![PaxosState::new()]
    }

    fn actions(&self, _: &PaxosState, actions: &mut Vec<PaxosAct>) {
        actions.extend([PaxosAct::DecideCommit, PaxosAct::DecideAbort]);
        for rm in 0..RMS {
            actions.extend([
                PaxosAct::RmPrepare(rm),
                PaxosAct::RmChooseToAbort(rm),
                PaxosAct::RmRcvCommit(rm),
                PaxosAct::RmRcvAbort(rm),
                PaxosAct::Phase1a(rm),
            ]);
            actions.extend((0..MAJORITIES.len()).map(|majority| PaxosAct::Phase2a(rm, majority)));
            for acceptor in 0..ACCEPTORS {
                actions.push(PaxosAct::Phase1b(rm, acceptor));
                for (ballot, prepared) in [(0, false), (0, true), (1, false), (1, true)] {
                    actions.push(PaxosAct::Phase2b(rm, acceptor, ballot, prepared));
                }
            }
        }
    }

    fn next_state(&self, state: &PaxosState, act: PaxosAct) -> Option<PaxosState> {
        state.act(act).filter(|next| next != state)
    }

    fn properties(&self) -> Vec<Property<PaxosCommit>> {
        vec![
            Property::always("consistent", |_, state: &PaxosState| consistent(&state.rms)),
            Property::sometimes("commits", |_, state: &PaxosState| state.rms == [Rm::Committed; RMS]),
        ]
    }
}
