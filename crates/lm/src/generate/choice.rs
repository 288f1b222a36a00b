//! Log-probabilities of given continuations: how a score is read without drawing one.

use super::tree::InputToken;
use super::{Cancel, Generator, LmError, Prefill};
use std::collections::HashMap;

impl Generator {
    /// Per context and choice: the sum of the log-probabilities of the choice's tokens right after
    /// the context. Beginnings that contexts share are read once, so contexts that extend one
    /// rubric's text, or one drawn completion, cost little more than their own tails.
    ///
    /// # Errors
    /// An empty context or choice, one that does not fit, broken weights, [`LmError::Cancelled`].
    pub fn choice_logps(
        &self,
        contexts: &[Vec<u32>],
        choices: &[Vec<u32>],
        cancel: &Cancel,
    ) -> Result<Vec<Vec<f64>>, LmError> {
        let longest = choices.iter().map(Vec::len).max().unwrap_or(0);
        for context in contexts {
            self.check_context(context)?;
            if context.len() + longest > self.config().max_position_embeddings {
                return Err(LmError::Model(format!(
                    "a context of {} tokens and a choice of {longest} exceed the {} that the \
                     model can read",
                    context.len(),
                    self.config().max_position_embeddings
                )));
            }
        }
        let vocab = self.config().vocab_size;
        if choices.iter().any(|c| c.is_empty() || c.iter().any(|&id| id as usize >= vocab)) {
            return Err(LmError::Model(
                "a choice is empty or has a token outside the vocabulary".into(),
            ));
        }
        if choices.is_empty() {
            return Ok(vec![Vec::new(); contexts.len()]);
        }
        self.fitting(|live_max| self.choices_with(contexts, choices, live_max, cancel))
    }

    fn choices_with(
        &self,
        contexts: &[Vec<u32>],
        choices: &[Vec<u32>],
        live_max: usize,
        cancel: &Cancel,
    ) -> Result<Vec<Vec<f64>>, LmError> {
        let longest = choices.iter().map(Vec::len).max().unwrap_or(0);
        let slices: Vec<&[u32]> = contexts.iter().map(Vec::as_slice).collect();
        let mut session = self.network.session();
        let mut prefill =
            Prefill::new(&mut *session, &self.config, slices, &vec![1; contexts.len()]);
        let mut results = Vec::with_capacity(contexts.len());
        let indices: Vec<usize> = (0..contexts.len()).collect();
        let firsts: Vec<u32> = choices.iter().map(|choice| choice[0]).collect();
        let mut of_leaf: HashMap<usize, Vec<f64>> = HashMap::new();
        for window in indices.chunks(live_max) {
            prefill.read(window, cancel, &mut |session, ends| {
                let at = ends.iter().flat_map(|(row, _)| std::iter::repeat_n(*row, firsts.len()));
                let at: Vec<usize> = at.collect();
                let logps = session.logps(&at, &firsts.repeat(ends.len()))?;
                let of_each = logps.chunks_exact(firsts.len());
                of_leaf
                    .extend(ends.iter().zip(of_each).map(|((_, leaf), of)| (*leaf, of.to_vec())));
                Ok(())
            })?;
            for &context in window {
                results.push(of_leaf[&prefill.plan.leaves[context]].clone());
            }
            if longest > 1 {
                self.add_rest(&mut prefill, window, choices, &mut results, cancel)?;
            }
            for &context in window {
                let node = prefill.end_node(context);
                prefill.session.tree().release(node);
            }
        }
        Ok(results)
    }

    /// Adds what the second and later tokens of the choices cost.
    fn add_rest(
        &self,
        prefill: &mut Prefill<'_>,
        window: &[usize],
        choices: &[Vec<u32>],
        results: &mut [Vec<f64>],
        cancel: &Cancel,
    ) -> Result<(), LmError> {
        let mut rows: Vec<InputToken> = Vec::new();
        let mut targets: Vec<(usize, usize, u32)> = Vec::new();
        let mut nodes = Vec::new();
        for &context in window {
            for (index, choice) in choices.iter().enumerate().filter(|(_, c)| c.len() > 1) {
                let start = prefill.contexts[context].len();
                let parent = prefill.end_node(context);
                let node = prefill.session.tree().add(Some(parent), start, 1);
                nodes.push(node);
                for (offset, pair) in choice.windows(2).enumerate() {
                    rows.push(InputToken { node, position: start + offset, token: pair[0] });
                    targets.push((context, index, pair[1]));
                }
            }
        }
        let most = prefill.session.rows_max();
        for (rows, targets) in rows.chunks(most).zip(targets.chunks(most)) {
            cancel.check()?;
            prefill.session.read(rows)?;
            let at: Vec<usize> = (0..rows.len()).collect();
            for (at, targets) in at.chunks(64).zip(targets.chunks(64)) {
                let tokens: Vec<u32> = targets.iter().map(|target| target.2).collect();
                let logps = prefill.session.logps(at, &tokens)?;
                for (logp, &(context, index, _)) in logps.into_iter().zip(targets) {
                    results[context][index] += logp;
                }
            }
        }
        for node in nodes {
            prefill.session.tree().drop_leaf(node);
        }
        Ok(())
    }
}
