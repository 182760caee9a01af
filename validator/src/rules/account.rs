use atproto::event::AccountEvent;
use storage::repos::AccountStatus;

use super::{Context, Stop};
use crate::verdict::Accept;

/// Always checks that the host is the account's by its document. Does not ask for a signing key: an account on its way
/// out may have none.
pub(super) fn judge(event: &AccountEvent<'_>, context: &Context<'_>) -> Result<Accept, Stop> {
    context.comes_from_the_accounts_host()?;
    context.has_a_place()?;
    let upstream = AccountStatus::from_event(event.active, event.status);
    Ok(context.accept(context.head().copied(), upstream))
}
