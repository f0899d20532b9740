"""Many tasks' notifications over one connection: `Listener` and its subscriptions."""

from greenpg._notifications import Notifications

from ._listener import Listener, all_listeners
from ._subscription import Missed, Subscription

__all__ = ["Listener", "Missed", "Notifications", "Subscription", "all_listeners"]
