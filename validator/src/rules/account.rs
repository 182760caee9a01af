use atproto::event::AccountEvent;

use super::Context;
use crate::verdict::Verdict;

pub(super) fn judge(event: &AccountEvent<'_>, context: &Context<'_>) -> Verdict {
    let _ = (event, context);
    todo!()
}
