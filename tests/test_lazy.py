"""An attribute that is computed when it is first read."""

from dataclasses import dataclass, field

from token_guard.lazy import lazy


def test_computes_once_for_each_object() -> None:
    """Not before it is read, and never again. The object may be frozen, the class has what any property has."""

    @dataclass(frozen=True)
    class Circle:
        radius: int
        asked: list[str] = field(default_factory=list)

        @lazy
        def diameter(self) -> int:
            """Twice the radius."""
            self.asked.append("diameter")
            return 2 * self.radius

    one, other = Circle(1), Circle(2)
    assert one.asked == []
    assert [one.diameter, other.diameter, one.diameter] == [2, 4, 2]
    assert (one.asked, vars(one)["diameter"]) == (["diameter"], 2)
    assert isinstance(Circle.diameter, lazy)
    assert Circle.diameter.__doc__ == "Twice the radius."
