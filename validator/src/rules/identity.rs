use super::{Context, Stop};
use crate::verdict::Accept;

/// Always checks that the host is the account's by its document, or was until now: in a migration both announce the new
/// document. What the event says is not believed; whoever reads it looks the identity up.
pub(super) fn judge(context: &Context<'_>) -> Result<Accept, Stop> {
    let was_host = context.state.is_some_and(|state| state.host == *context.host);
    if !was_host {
        context.comes_from_the_accounts_host()?;
    }
    context.has_a_place()?;
    Ok(context.accept(context.head().copied(), context.upstream()))
}
