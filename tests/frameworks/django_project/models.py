import uuid

from django.db import models


class Account(models.Model):  # type: ignore[misc]  # Django has no types
    name = models.TextField(unique=True)
    balance = models.IntegerField(default=0)


class Note(models.Model):  # type: ignore[misc]  # Django has no types
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    about = models.JSONField(default=dict)
    at = models.DateTimeField(null=True)
    amount = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    body = models.BinaryField(default=b"")
