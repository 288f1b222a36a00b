//! The threads that all computations share, asked for in a way that answers.

use super::error::LmError;

/// Starts the pool that computations share, unless it is there. Whoever is first to compute would
/// start it otherwise, and panic where the system gives no thread.
///
/// # Errors
/// [`LmError::Threads`] with what the system said.
pub fn start() -> Result<(), LmError> {
    use std::error::Error;
    match rayon::ThreadPoolBuilder::new().build_global() {
        // Without a cause it is there already.
        Err(error) if error.source().is_some() => Err(LmError::Threads(error.to_string())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn they_may_be_there_already() {
        super::start().unwrap();
        super::start().unwrap();
    }
}
