//! Writes of what is sealed: a value is bound to its place and key before the writer sees it, and both may change until then.

use super::StoreError;

/// How often what is written is sealed for the place that it was found at.
const ATTEMPTS: usize = 5;

/// Does `write`, which locates, seals and stores, and that anew for as long as what it sealed for is `Moved` under its hands.
/// Its own outer error ends this at once.
pub async fn while_moved<T, E, F>(mut write: impl FnMut() -> F) -> Result<T, E>
where
    E: From<StoreError>,
    F: Future<Output = Result<Result<T, StoreError>, E>>,
{
    for _ in 1..ATTEMPTS {
        match write().await? {
            Err(StoreError::Moved(_)) => {}
            result => return Ok(result?),
        }
    }
    Ok(write().await??)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::super::Object;
    use super::*;

    const MOVED: StoreError = StoreError::Moved(Object::Secret);

    /// What comes of a write that answers these one after another, and how often it was asked.
    async fn written(answers: &[Result<Result<u32, StoreError>, StoreError>]) -> (Result<u32, StoreError>, usize) {
        let mut answers = answers.iter().cloned();
        let all = answers.len();
        let written = while_moved(|| ready(answers.next().expect("it asks no further"))).await;
        (written, all - answers.len())
    }

    #[tokio::test]
    async fn what_was_moved_is_written_again_and_any_other_answer_is_the_answer() {
        let moved = || Ok(Err(MOVED));
        assert_eq!(written(&[Ok(Ok(1)), Ok(Ok(2))]).await, (Ok(1), 1));
        assert_eq!(written(&[moved(), moved(), Ok(Ok(3)), Ok(Ok(4))]).await, (Ok(3), 3));
        let full = StoreError::DiskFull;
        assert_eq!(
            written(&[moved(), Ok(Err(full.clone())), moved()]).await,
            (Err(full), 2)
        );
        assert_eq!(
            written(&[moved(), Err(StoreError::TooSlow), moved()]).await,
            (Err(StoreError::TooSlow), 2)
        );
        // Even that it is moved, where it is not the write that says so.
        assert_eq!(written(&[Err(MOVED), moved()]).await, (Err(MOVED), 1));
    }

    #[tokio::test]
    async fn what_is_moved_again_and_again_is_given_up() {
        let moved = [const { Ok(Err(MOVED)) }; ATTEMPTS + 1];
        assert_eq!(written(&moved).await, (Err(MOVED), ATTEMPTS));
    }
}
