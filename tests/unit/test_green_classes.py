"""Users' classes with the green classes under them: nobody who observes definitions sees those."""

from __future__ import annotations

# the base classes are psycopg2's C classes, which have no stubs
# mypy: disable-error-code="misc,name-defined,valid-type"
import abc
import gc
from typing import Any, Generic, TypeVar
from weakref import ref

import psycopg2
import pytest
from psycopg2 import extras

import greenpg
from greenpg._green_classes import green_class, original_class
from greenpg.cursor import NamedCursor
from greenpg.replication import ReplicationCursor

C_CONNECTION = psycopg2._psycopg.connection
C_CURSOR = psycopg2._psycopg.cursor
C_LOBJECT = psycopg2._psycopg.lobject
GREEN = {
    C_CONNECTION: greenpg.Connection,
    C_CURSOR: greenpg.Cursor,
    C_LOBJECT: greenpg.extensions.lobject,
}


@pytest.fixture(params=GREEN)
def c_class(request):
    return request.param


@pytest.fixture(params=[*GREEN, *GREEN.values(), NamedCursor, ReplicationCursor])
def base(request):
    """A class that programs may derive theirs from."""
    return request.param


def assert_is_green(made, original):
    (kind,) = [kind for kind in GREEN if issubclass(original, kind)]

    assert made.__mro__.index(original) < made.__mro__.index(GREEN[kind])
    assert made.__mro__[-3:] == (GREEN[kind], kind, object)


def test_metaclass_does_not_see_the_green_class(c_class):
    seen = []

    class Meta(type):
        colour = "of the metaclass"

        def __new__(mcls, name, bases, content):
            seen.append(("new", name))
            return super().__new__(mcls, name, bases, content)

        def __init__(cls, name, bases, content):
            seen.append(("init", name))

        def __setattr__(cls, name, value):
            raise AttributeError("constant")

    class Observed(c_class, metaclass=Meta):
        pass

    made = green_class(Observed)

    assert_is_green(made, Observed)
    assert seen == [("new", "Observed"), ("init", "Observed")]
    assert type(made) is Meta
    assert made.colour == "of the metaclass"
    assert green_class(Observed) is made


def test_metaclass_may_compare_classes_in_its_own_way(c_class):
    class Meta(type):
        def __eq__(cls, other):
            return True

        def __instancecheck__(cls, instance):
            raise RuntimeError

        __subclasscheck__ = __instancecheck__

    class Equal(c_class, metaclass=Meta):
        pass

    made = green_class(Equal)

    assert made.__mro__[1] is Equal
    assert made.__mro__[-3] is GREEN[c_class]


def test_init_subclass_does_not_run_for_the_green_class(c_class):
    registry = []

    class Base(c_class):
        def __init_subclass__(cls, *, table):
            registry.append((cls.__name__, table))

    class Row(Base, table="row"):
        pass

    assert_is_green(green_class(Row), Row)
    assert registry == [("Row", "row")]
    assert green_class(Row).__bases__ == (Row, GREEN[c_class])


def test_class_that_forbids_subclasses_is_accepted(c_class):
    class Final(c_class):
        def __init_subclass__(cls):
            raise TypeError("final")

    assert_is_green(green_class(Final), Final)


def test_subclass_of_the_green_class_is_seen_once(c_class):
    registry = []

    class Base(c_class):
        def __init_subclass__(cls):
            registry.append(cls.__name__)

    class Under(green_class(Base)):
        pass

    assert_is_green(Under, Base)
    assert registry == ["Under"]


def test_set_name_does_not_run_for_the_green_class(c_class):
    named = []

    class Field:
        def __set_name__(self, owner, name):
            named.append((owner.__name__, name))

    class Record(c_class):
        field = Field()

    assert_is_green(green_class(Record), Record)
    assert named == [("Record", "field")]


def test_metaclasses_do_not_conflict(base):
    class Meta(type):
        pass

    class WithMeta(base, metaclass=Meta):
        pass

    class WithAbc(base, abc.ABC):
        pass

    class WithGeneric(base, Generic[TypeVar("T")]):
        pass

    assert type(base) is type
    assert [type(green_class(kind)) for kind in (WithMeta, WithAbc)] == [Meta, abc.ABCMeta]
    assert issubclass(green_class(WithGeneric), WithGeneric)


def test_abc_and_its_green_class_remember_instances_apart():
    class Base(C_CURSOR, abc.ABC):
        pass

    class Plain(Base):
        pass

    plain = Plain.__new__(Plain)
    made: Any = green_class(Base)
    instance = made.__new__(made)

    assert not isinstance(plain, made)
    assert isinstance(plain, Base)
    assert isinstance(instance, Base)
    assert isinstance(instance, made)


def test_class_with_slots_keeps_them(c_class):
    class Slotted(c_class):
        __slots__ = ("place",)

    made: Any = green_class(Slotted)
    instance = made.__new__(made)
    instance.place = 5

    assert (instance.place, Slotted.place.__get__(instance)) == (5, 5)


def test_green_class_bears_the_names_of_the_users():
    class Named(C_CURSOR):
        """A class with a text."""

    made = green_class(Named)

    facts = [(kind.__module__, kind.__qualname__, kind.__doc__) for kind in (made, Named)]
    assert facts[0] == facts[1]
    assert original_class(made) is Named


def test_green_class_ends_with_the_users():
    def kept():
        class Short(C_CURSOR):
            pass

        return ref(Short), ref(green_class(Short))

    refs = kept()
    gc.collect()

    assert [kept() for kept in refs] == [None, None]


def test_most_specific_green_class_is_chosen():
    class Feed(extras.ReplicationCursor):
        pass

    assert issubclass(green_class(Feed), ReplicationCursor.__mro__[2])
    assert issubclass(green_class(extras.DictCursor), greenpg.Cursor)


@pytest.mark.parametrize("factory", [print, int, None, 5])
def test_what_is_no_class_of_psycopg2s_is_returned_unchanged(factory):
    assert green_class(factory) is factory
