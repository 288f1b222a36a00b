//! DRAWING WITHOUT AN END: requests come while others are drawn, and take their next step together with
//! them. Each gives what it would give alone (see [`super`]).

use super::{DrawRequest, Drawn, FirstTokens, Generator, LiveSequence, Prefill, StopReason, admit};
use crate::cancel::Cancel;
use crate::error::LmError;
use std::sync::atomic::Ordering;

/// A token of a sequence that is being drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ToldToken {
    /// Which request, in the order in which they came, from 0.
    pub request: usize,
    /// Which of its candidates.
    pub candidate: usize,
    /// The token; a stop id is told too.
    pub id: u32,
    /// Its log-probability under the unmodified distribution, nats; `None` where a model does not say.
    pub logp: Option<f64>,
}

/// Where requests come from, and where their tokens go.
pub trait DrawSource {
    /// Requests to be drawn from here on, of about `room` sequences in all. `idle`: nothing is being
    /// drawn, so it may wait for one. `None`: no more will come.
    fn next(&mut self, room: usize, idle: bool) -> Option<Vec<DrawRequest>>;

    /// A token; `false`: nobody wants the rest of its sequence.
    fn token(&mut self, token: ToldToken) -> bool;

    /// A sequence is whole.
    fn ended(&mut self, request: usize, candidate: usize, drawn: Drawn);

    /// A request cannot be drawn, and why.
    fn refused(&mut self, request: usize, why: LmError);
}

impl Generator {
    /// Draws what a source asks for until no more will come and all is drawn.
    ///
    /// # Errors
    /// What ends all that is being drawn: a device that fails, broken weights, [`LmError::Cancelled`].
    pub fn draw_continuously(
        &self,
        source: &mut dyn DrawSource,
        cancel: &Cancel,
    ) -> Result<(), LmError> {
        let mut session = self.network.session();
        let mut live: Vec<LiveSequence> = Vec::new();
        let (mut came, mut over) = (0, false);
        loop {
            cancel.check()?;
            let room = self.live_max.load(Ordering::Relaxed).saturating_sub(live.len());
            if !over && room > 0 {
                match source.next(room, live.is_empty()) {
                    None => over = true,
                    Some(requests) => {
                        let numbered = (came..).zip(requests).collect::<Vec<_>>();
                        came += numbered.len();
                        let good = self.drawable(numbered, source);
                        live.extend(self.newcomers(&good, &mut *session, cancel)?);
                        told(&mut live, &mut *session, source, true);
                    }
                }
            }
            if live.is_empty() && over {
                return Ok(());
            }
            if !live.is_empty() {
                self.step(&mut live, &mut *session)?;
                cancel.note_drawn(live.len() as u64);
                told(&mut live, &mut *session, source, false);
            }
        }
    }

    /// Those that can be drawn; the others are refused.
    fn drawable(
        &self,
        requests: Vec<(usize, DrawRequest)>,
        source: &mut dyn DrawSource,
    ) -> Vec<(usize, DrawRequest)> {
        let mut good = Vec::with_capacity(requests.len());
        for (number, request) in requests {
            match self.check_context(&request.prompt).and_then(|()| request.sampling.validate()) {
                Ok(()) => good.push((number, request)),
                Err(why) => source.refused(number, why),
            }
        }
        good
    }

    /// Reads their prompts, a beginning that they share once.
    fn newcomers(
        &self,
        numbered: &[(usize, DrawRequest)],
        session: &mut dyn super::KvSession,
        cancel: &Cancel,
    ) -> Result<Vec<LiveSequence>, LmError> {
        let requests: Vec<DrawRequest> = numbered.iter().map(|(_, one)| one.clone()).collect();
        let prompts: Vec<&[u32]> = requests.iter().map(|one| one.prompt.as_slice()).collect();
        let users: Vec<usize> = requests.iter().map(|one| one.seeds.len()).collect();
        let mut prefill = Prefill::new(session, &self.config, prompts, &users);
        let mut firsts = FirstTokens::new(&prefill.plan.leaves, &requests);
        let all: Vec<(usize, usize)> = users
            .iter()
            .enumerate()
            .flat_map(|(at, count)| (0..*count).map(move |candidate| (at, candidate)))
            .collect();
        let mut live = admit(&mut prefill, &mut firsts, &all, cancel)?;
        for sequence in &mut live {
            sequence.request = numbered.get(sequence.request).map_or(0, |(number, _)| *number);
        }
        Ok(live)
    }
}

/// Tells the last token of every sequence (`first`: of those that have one alone), and lets those go
/// that are whole or that nobody wants any more.
fn told(
    live: &mut Vec<LiveSequence>,
    session: &mut dyn super::KvSession,
    source: &mut dyn DrawSource,
    first: bool,
) {
    live.retain_mut(|one| {
        if first && one.ids.len() > 1 {
            return true;
        }
        let (request, candidate) = (one.request, one.candidate);
        let id = one.ids.last().copied().unwrap_or_default();
        let wanted = source.token(ToldToken { request, candidate, id, logp: Some(one.last_logp) });
        let stop: Option<StopReason> = one.stop;
        if wanted && stop.is_none() {
            return true;
        }
        session.tree().release(one.node);
        if let Some(stop) = stop.filter(|_| wanted) {
            let token_ids = std::mem::take(&mut one.ids);
            source.ended(request, candidate, Drawn { token_ids, logp: one.logp, stop });
        }
        false
    });
}
