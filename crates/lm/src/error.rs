//! What can go wrong with a model: files, shapes, numbers. A bad completion is not among them.

use std::path::PathBuf;

/// An error of the model layer. Not `non_exhaustive`: who decides whose doing an error is, the task's
/// or the machine's, has to decide it for a new kind too, or does not compile.
#[derive(Debug, thiserror::Error)]
pub enum LmError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What was given as a model is neither a folder with one nor a `.gguf` file.
    #[error(
        "{path} is neither a model folder nor a .gguf file. Give a folder with config.json, \
         model.safetensors and tokenizer.json, or a GGUF file{whence}"
    )]
    NoModel {
        /// What was given.
        path: PathBuf,
        /// Where a relative path begins, in brackets; empty where that is the working folder.
        whence: &'static str,
    },
    /// A file that every model needs is not there; the text says which, and what to do.
    #[error("{0}")]
    Incomplete(String),
    /// Some of the weights are no finite numbers.
    #[error(
        "{bad} of the {of} numbers of tensor {tensor} are not finite (NaN or infinite): the model is \
         damaged, or was saved by a training that diverged. Fetch it again, or take another"
    )]
    NotFinite {
        /// The first such tensor.
        tensor: String,
        /// How many of its numbers.
        bad: usize,
        /// How many it has.
        of: usize,
    },
    /// Conversations are to be rendered, and the model has no chat template.
    #[error(
        "the model has no chat template, so \"messages\" prompts can't be rendered. Give one: chatml, \
         or a Jinja template of your own"
    )]
    NoTemplate,
    /// A file is not a model we can use, or a model cannot do what was asked; the text says what
    /// and what to do.
    #[error("{0}")]
    Model(String),
    /// `config.json` does not describe a network we know.
    #[error("model configuration: {0}")]
    Config(String),
    /// The tokenizer refused.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template refused.
    #[error("chat template: {0}")]
    Template(String),
    /// A tensor operation failed: a shape or a type; the text is the operation's.
    #[error("tensor operation: {0}")]
    Tensor(String),
    /// Training cannot begin or go on; the text has the figures.
    #[error("training: {0}")]
    Training(String),
    /// A device that was asked for cannot be had.
    #[error("device {device}: {why}. {advice}")]
    Device {
        /// Which.
        device: String,
        /// Why.
        why: String,
        /// What to do.
        advice: String,
    },
    /// The device has no room for what a computation needs.
    #[error("device memory: {wanted} bytes are wanted, {held} are held, and {why}")]
    DeviceMemory {
        /// Bytes that were asked for.
        wanted: u64,
        /// Bytes that gradus held then.
        held: u64,
        /// What was said.
        why: String,
    },
    /// A device that was computing does not any more: it was lost, or its driver refuses. The
    /// process that meets this cannot use it again.
    #[error(
        "the device failed: {0}. What a process has on a device is gone after that: start again, \
         or on another (device: cpu); `nvidia-smi` says what ails it"
    )]
    DeviceLost(String),
    /// The system gives no threads to compute with.
    #[error(
        "the system gives no thread: {0}. More are allowed by `ulimit -u`, or a container's limit"
    )]
    Threads(String),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl LmError {
    /// An I/O error with its path.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> LmError {
        LmError::Io { path: path.into(), source }
    }
}

/// What a driver said, where an error comes from one and not from a shape or a type.
fn of_a_driver(error: &candle_core::Error) -> Option<String> {
    match error {
        candle_core::Error::Cuda(said) => Some(said.to_string()),
        candle_core::Error::Context { inner, .. }
        | candle_core::Error::WithPath { inner, .. }
        | candle_core::Error::WithBacktrace { inner, .. } => of_a_driver(inner),
        _ => None,
    }
}

impl From<candle_core::Error> for LmError {
    fn from(error: candle_core::Error) -> LmError {
        match of_a_driver(&error) {
            Some(why) if why.contains("OUT_OF_MEMORY") => {
                LmError::DeviceMemory { wanted: 0, held: 0, why }
            }
            Some(why) => LmError::DeviceLost(why),
            None => LmError::Tensor(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_says_is_told_from_a_wrong_shape() {
        let driver = |said: &str| {
            LmError::from(candle_core::Error::Cuda(said.into()).context("in a kernel"))
        };
        let lost = driver("DriverError(CUDA_ERROR_ECC_UNCORRECTABLE, \"uncorrectable ECC error\")");
        assert!(matches!(&lost, LmError::DeviceLost(why) if why.contains("ECC")), "{lost}");
        assert!(lost.to_string().contains("start again"), "{lost}");
        let short = driver("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
        assert!(matches!(short, LmError::DeviceMemory { .. }), "{short}");
        let shape = LmError::from(candle_core::Error::msg("shapes differ"));
        assert!(matches!(shape, LmError::Tensor(_)), "{shape}");
    }
}
