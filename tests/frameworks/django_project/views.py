from django.db import connection, transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse

from .models import Account


def balance(request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(str(Account.objects.get(name=name).balance))


def execute(request: HttpRequest) -> HttpResponse:
    """Run the statement in the query string and return its first value."""
    with connection.cursor() as cur:
        cur.execute(request.GET["sql"])
        return HttpResponse(str(cur.fetchone()[0]))


def transfer(request: HttpRequest, source: str, target: str, amount: int) -> HttpResponse:
    """Move money in one transaction; sleep in its middle for `rest` seconds, if given."""
    with transaction.atomic():
        move(source, -amount)
        with connection.cursor() as cur:
            cur.execute("select pg_sleep(%s)", [float(request.GET.get("rest", 0))])
        move(target, amount)
    return HttpResponse("done")


def move(name: str, amount: int) -> None:
    Account.objects.filter(name=name).update(balance=F("balance") + amount)
