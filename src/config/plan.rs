//! Settings become the plan of the iteration that is opened next.

use super::{
    Config, DpoConfig, GateConfig, LossType, PairRule, PromptsConfig, SamplingConfig, SftConfig,
    TrainConfig,
};
use crate::domain::event::IterationKind;
use crate::domain::plan::{
    Difference, EvaluationPlan, Gate, JudgePlan, Loss, MovingMean, Objective, OptimizerPlan,
    PairingPlan, PairingRule, PlannedEngine, PlannedSampling, ProbePlan, PromptPlan, Reference,
    ReferenceRule, Rehearsal, SampleSet, SeedSet, Trained, TrainingPlan, WriterPlan,
};
use crate::domain::{AdapterShape, IterationPlan, Panel, PolicyRef};

/// What a run has come to when an iteration opens.
#[derive(Clone, Debug)]
pub struct PlanInputs<'a> {
    /// Whether it is supervised.
    pub kind: IterationKind,
    /// The policy that acts.
    pub policy: &'a PolicyRef,
    /// The first policy that was promoted, or the base before there is one.
    pub initial: &'a PolicyRef,
    /// The moving mean of policies that was a reference last; before there is one, the initial.
    pub mean: &'a PolicyRef,
    /// The rubrics that judge.
    pub panel: &'a Panel,
    /// Rows for supervised fine-tuning.
    pub seed_data: &'a [SeedSet],
}

impl Config {
    /// What answers with the run's policies.
    pub fn engine(&self) -> PlannedEngine {
        self.brought.policy_engine(PlannedEngine::Local { weight_bits: self.sampling.weight_bits })
    }

    /// The engine that a setting names, or the run's own.
    fn engine_of(&self, named: Option<&String>) -> PlannedEngine {
        named.map_or_else(|| self.engine(), |name| self.brought.engine(name))
    }

    /// Names of engines that answer or judge, with the settings that name them.
    pub fn engines_used(&self) -> Vec<(&'static str, &str)> {
        let named = [
            ("sampling.engine", self.sampling.engine.as_deref()),
            ("judge.engine", self.judge.engine.as_deref()),
        ];
        named.into_iter().filter_map(|(key, name)| Some((key, name?))).collect()
    }

    /// How the policy writes new prompts, if it does.
    pub fn writer_plan(&self) -> Option<WriterPlan> {
        self.prompts.writer_plan(self.brought.writer())
    }

    /// What an iteration that opens now does.
    pub fn plan(&self, inputs: &PlanInputs<'_>) -> IterationPlan {
        let answers = self.sampling.drawing();
        IterationPlan {
            objective: self.train.objective(inputs),
            policy: inputs.policy.clone(),
            reference: self.train.dpo.reference(inputs),
            prompts: PromptPlan {
                per_iteration: self.prompts.per_iteration,
                writer: self.writer_plan(),
                reuse: self.prompts.reuse,
            },
            samples: self.sample_sets(inputs),
            batch_prompts: self.sampling.batch_prompts,
            judge: self.judge_plan(inputs.panel),
            pairing: self.pairing_plan(),
            training: self.train.plan(inputs.kind),
            evaluation: self.evaluation_plan(answers),
        }
    }

    fn sample_sets(&self, inputs: &PlanInputs<'_>) -> Vec<SampleSet> {
        let set = |name: &str, policy: Option<&PolicyRef>, engine| SampleSet {
            name: name.to_owned(),
            policy: policy.cloned(),
            engine,
            n: self.sampling.candidates,
            sampling: self.sampling.drawing(),
        };
        let own = set(SampleSet::POLICY, None, self.engine_of(self.sampling.engine.as_ref()));
        match self.pairs.rule {
            PairRule::BestWorst => vec![own],
            PairRule::Anchored => {
                vec![own, set(SampleSet::INITIAL, Some(inputs.initial), self.engine())]
            }
        }
    }

    fn judge_plan(&self, panel: &Panel) -> JudgePlan {
        let judge = &self.judge;
        let probes = ProbePlan {
            prompts: judge.probes,
            prompts_max: judge.probes_max,
            forgery_gain_max: judge.forgery_gain_max,
        };
        JudgePlan {
            policy: None,
            engine: self.engine_of(judge.engine.as_ref()),
            panel: panel.clone(),
            samples: judge.samples,
            sampling: PlannedSampling {
                temperature: judge.temperature,
                top_p: judge.top_p,
                max_new_tokens: judge.max_new_tokens,
            },
            readout: judge.readout,
            source: judge.source,
            probes: (judge.probes > 0).then_some(probes),
            comparisons_max: judge.comparisons_max,
        }
    }

    fn pairing_plan(&self) -> PairingPlan {
        let pairs = &self.pairs;
        let difference = Difference {
            min_gap: pairs.min_gap,
            noise: pairs.noise,
            length_control: pairs.length_control,
            require_ended: pairs.require_ended,
        };
        let rejected_from = SampleSet::INITIAL.to_owned();
        PairingPlan {
            rule: match pairs.rule {
                PairRule::BestWorst => PairingRule::BestWorst(difference),
                PairRule::Anchored => PairingRule::Anchored { difference, rejected_from },
            },
            min_pairs: pairs.min_pairs,
            on_no_signal: pairs.on_no_signal,
        }
    }

    fn evaluation_plan(&self, answers: PlannedSampling) -> EvaluationPlan {
        let evaluate = &self.evaluate;
        EvaluationPlan {
            prompts: evaluate.prompts,
            judge_prompts: evaluate.judge_prompts,
            sampling: PlannedSampling {
                temperature: evaluate.temperature,
                top_p: evaluate.top_p,
                ..answers
            },
            rubrics: evaluate.rubrics.clone(),
            gate: evaluate.gate.plan(),
            on_alarm: evaluate.on_alarm,
        }
    }
}

impl GateConfig {
    /// The gate that they describe.
    pub fn plan(&self) -> Gate {
        let GateConfig { mode, margin, length_growth_max, .. } = *self;
        Gate { mode, margin, length_growth_max }
    }
}

impl SamplingConfig {
    /// How answers are drawn.
    pub fn drawing(&self) -> PlannedSampling {
        let SamplingConfig { temperature, top_p, max_new_tokens, .. } = *self;
        PlannedSampling { temperature, top_p, max_new_tokens }
    }
}

impl PromptsConfig {
    fn writer_plan(&self, style: String) -> Option<WriterPlan> {
        self.generate.then_some(WriterPlan {
            style,
            shots: self.shots,
            draws_per_round: self.draws_per_round,
            rounds_max: self.rounds_max,
            sampling: PlannedSampling {
                temperature: self.temperature,
                top_p: self.top_p,
                max_new_tokens: self.max_new_tokens,
            },
        })
    }
}

impl TrainConfig {
    fn objective(&self, inputs: &PlanInputs<'_>) -> Objective {
        let data = inputs.seed_data.to_vec();
        match inputs.kind {
            IterationKind::Sft => Objective::Supervised { data },
            IterationKind::Dpo => {
                let weight = self.dpo.rehearsal_weight;
                let rehearses = weight > 0.0 && !data.is_empty();
                Objective::Preference {
                    loss: self.dpo.loss(),
                    nll_weight: self.dpo.nll_weight,
                    rehearsal: rehearses.then_some(Rehearsal { weight, data }),
                }
            }
        }
    }

    /// The adapter that they describe.
    pub fn adapter(&self) -> AdapterShape {
        AdapterShape {
            r: self.lora_r,
            alpha: self.lora_alpha,
            target_modules: self.lora_target_modules.clone(),
        }
    }

    fn plan(&self, kind: IterationKind) -> TrainingPlan {
        let (optimizer, batch_size, epochs) = match kind {
            IterationKind::Sft => (
                self.sft.optimizer(),
                self.sft.per_device_train_batch_size,
                self.sft.num_train_epochs,
            ),
            IterationKind::Dpo => (
                self.dpo.optimizer(),
                self.dpo.per_device_train_batch_size,
                self.dpo.num_train_epochs,
            ),
        };
        TrainingPlan {
            trained: if self.use_peft { Trained::Adapter(self.adapter()) } else { Trained::All },
            optimizer,
            batch_size,
            epochs,
            segment_steps: self.save_steps,
            threads: self.threads,
            gradient_checkpointing: self.gradient_checkpointing,
            keep_checkpoints: self.keep_checkpoints,
        }
    }
}

impl SftConfig {
    fn optimizer(&self) -> OptimizerPlan {
        OptimizerPlan {
            learning_rate: self.learning_rate,
            schedule: self.lr_scheduler_type,
            warmup_steps: self.warmup_steps,
            final_ratio: self.min_lr_rate,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
        }
    }
}

impl DpoConfig {
    fn loss(&self) -> Loss {
        let (beta, label_smoothing) = (self.beta, self.label_smoothing);
        match self.loss_type {
            LossType::Sigmoid => Loss::Sigmoid { beta, label_smoothing },
            LossType::Robust => Loss::Robust { beta, label_smoothing },
            LossType::Ipo => Loss::Ipo { beta },
            LossType::Hinge => Loss::Hinge { beta },
        }
    }

    fn reference(&self, inputs: &PlanInputs<'_>) -> Reference {
        let policy = match (inputs.kind, self.reference) {
            (IterationKind::Sft, _) => {
                return Reference { rule: ReferenceRule::None, policy: None, made_of: None };
            }
            // The mean of one and the same.
            (_, ReferenceRule::Ema) if inputs.mean == inputs.policy => Some(inputs.policy),
            (_, ReferenceRule::Ema) => None,
            (_, ReferenceRule::Previous) => Some(inputs.policy),
            (_, ReferenceRule::Initial) => Some(inputs.initial),
            (_, ReferenceRule::None) => None,
        };
        let made = self.reference == ReferenceRule::Ema && policy.is_none();
        let made_of = made.then(|| MovingMean {
            mean: inputs.mean.clone(),
            newest: inputs.policy.clone(),
            decay: self.reference_decay,
        });
        Reference { rule: self.reference, policy: policy.cloned(), made_of }
    }

    fn optimizer(&self) -> OptimizerPlan {
        OptimizerPlan {
            learning_rate: self.learning_rate,
            schedule: self.lr_scheduler_type,
            warmup_steps: self.warmup_steps,
            final_ratio: self.min_lr_rate,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
        }
    }
}
