//! Will it fit? An estimate of what a run needs, before hours are spent to find out; and whether
//! there is memory now, before each heavy task.

use crate::config::Config;
use crate::error::Error;
use crate::lm::config::ModelConfig;
use crate::lm::train::{LOGIT_BYTES_MAX, MICRO_BATCH_BYTES, activation_bytes_per_row};
use crate::lm::weights::expected_shapes;
use crate::stage::Headroom;
use std::fs;
use std::path::Path;

const F32_BYTES: u64 = 4;

/// Parameters of a network of this shape.
pub fn parameters(config: &ModelConfig) -> u64 {
    let count = |(_, shape): (String, Vec<usize>)| shape.iter().map(|n| *n as u64).product::<u64>();
    expected_shapes(config).into_iter().map(count).sum()
}

/// Bytes a run holds at once, roughly: two open policies (the one that acts and the one that is
/// measured), the weights in training with gradients and two moments of what moves; and beside
/// them either the activations of a micro-batch and a chunk of logits, or, while a checkpoint is
/// saved, what moves and its moments as they are written.
pub fn needed_bytes(model: &ModelConfig, config: &Config) -> u64 {
    let all = parameters(model) * F32_BYTES;
    let trained = if config.train.use_peft {
        let r = u64::from(config.train.lora_r);
        let per_layer = 2 * r * (5 * model.hidden_size + 2 * model.intermediate_size) as u64;
        per_layer * model.num_hidden_layers as u64 * F32_BYTES
    } else {
        all
    };
    let rows = u64::from(2 * config.sampling.max_new_tokens + 256);
    let batch = u64::from(config.train.dpo.train_batch_size.max(1)) * rows;
    let per_row = activation_bytes_per_row(model, config.train.gradient_checkpointing) as u64;
    let activations = (batch * per_row).min((MICRO_BATCH_BYTES as u64).max(rows * per_row));
    let step = activations + LOGIT_BYTES_MAX as u64;
    let saving = 4 * trained;
    3 * all + 3 * trained + step.max(saving)
}

/// Memory that is free to use, where the system says: of the machine, and below the limits of the
/// control groups that the process is in (a container's).
pub fn available_bytes() -> Option<u64> {
    available_below(Path::new("/"))
}

fn available_below(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok();
    let machine = meminfo.and_then(|text| field(&text, "MemAvailable:")).map(|kib| kib * 1024);
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    groups.lines().filter_map(|line| left_in_groups(root, line)).chain(machine).min()
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What a line of `/proc/self/cgroup` (`4:memory:/a/b`, or `0::/a/b` of version 2; cgroups(7))
/// leaves: the least of the group and all that it is in. Cached files that nobody has used of late
/// are given back under pressure, so they count as free.
fn left_in_groups(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (mount, limit, usage, idle) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "),
        "memory" => (
            "sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        ),
        _ => return None,
    };
    let left = |group: &Path| {
        let number = |file| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let used = number(usage)?.saturating_sub(field(&stat, idle).unwrap_or(0));
        Some(number(limit)?.saturating_sub(used))
    };
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    groups.filter_map(|group| left(&root.join(mount).join(group))).min()
}

/// Leaves some of the system's memory to others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserve {
    /// How many MiB; 0 leaves nothing.
    pub mib: u32,
}

impl Headroom for Reserve {
    fn lacking(&self) -> Option<String> {
        let available = Some(self.mib).filter(|mib| *mib > 0).and_then(|_| available_bytes())?;
        let mib = available / (1 << 20);
        (mib < u64::from(self.mib)).then(|| {
            format!(
                "{mib} MiB of memory are available; supervision.memory_reserve_mib leaves {} to \
                 others",
                self.mib
            )
        })
    }
}

/// Refuses what cannot fit.
///
/// # Errors
/// GRADUS0110 with both sizes and what would help.
pub fn check(model: &ModelConfig, config: &Config, available: Option<u64>) -> Result<(), Error> {
    let needed = needed_bytes(model, config);
    let Some(available) = available.filter(|available| needed > *available) else { return Ok(()) };
    let gib = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
    let advice = if config.train.use_peft {
        "Take a smaller model, or lower sampling.max_new_tokens"
    } else {
        "Set train.use_peft: true (LoRA), use --preset tiny, or take a smaller model"
    };
    Err(Error::Usage(format!(
        "GRADUS0110 the run needs about {:.1} GiB and {:.1} GiB are free ({:.0} M parameters). \
         {advice}",
        gib(needed),
        gib(available),
        parameters(model) as f64 / 1e6
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SmolLM2-135M has 134,515,008 parameters (its model card).
    const SMOLLM2: &str = r#"{"model_type":"llama","hidden_size":576,"intermediate_size":1536,
        "num_hidden_layers":30,"num_attention_heads":9,"num_key_value_heads":3,
        "vocab_size":49152,"max_position_embeddings":8192,"rope_theta":100000.0,
        "rms_norm_eps":1e-5,"eos_token_id":2,"tie_word_embeddings":true}"#;

    #[test]
    fn counts_parameters() {
        let model = ModelConfig::from_hf_json(SMOLLM2).unwrap();
        assert_eq!(parameters(&model), 134_515_008);
    }

    #[test]
    fn the_tightest_of_machine_and_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let available = || available_below(root.path());
        assert_eq!(available(), None, "nobody says");
        write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    4096 kB\n");
        write("proc/self/cgroup", "9:cpu:/x\n4:memory:/a/b\n0::/c/d\n");
        assert_eq!(available(), Some(4096 << 10), "no group says anything");
        write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
        write("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "1000\n");
        write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3000\n");
        write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "2900\n");
        write("sys/fs/cgroup/memory/a/memory.stat", "total_inactive_file 500\n");
        assert_eq!(available(), Some(600), "a group around it is tighter");
        write("sys/fs/cgroup/c/d/memory.max", "max\n");
        write("sys/fs/cgroup/c/d/memory.current", "7\n");
        assert_eq!(available(), Some(600), "without a limit");
        write("sys/fs/cgroup/c/d/memory.max", "10\n");
        assert_eq!(available(), Some(3));
        write("sys/fs/cgroup/c/d/memory.current", "11\n");
        assert_eq!(available(), Some(0), "over its limit");
    }

    #[test]
    fn says_what_would_help() {
        let model = ModelConfig::from_hf_json(SMOLLM2).unwrap();
        let config = Config::default();
        assert!(check(&model, &config, None).is_ok());
        assert!(check(&model, &config, Some(1 << 40)).is_ok());
        let error = check(&model, &config, Some(1 << 30)).unwrap_err().to_string();
        assert!(error.contains("GRADUS0110") && error.contains("use_peft"), "{error}");
        let lora = Config::preset("tiny").unwrap();
        assert!(needed_bytes(&model, &lora) < needed_bytes(&model, &config));
    }
}
