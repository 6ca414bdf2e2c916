"""An attribute that is computed when it is first read."""

from dataclasses import dataclass, field

from token_guard.lazy import lazy


@dataclass(frozen=True)
class Circle:
    """What has a lazy attribute, and may be frozen."""

    radius: int
    asked: list[str] = field(default_factory=list)

    @lazy
    def diameter(self) -> int:
        """Twice the radius."""
        self.asked.append("diameter")
        return 2 * self.radius


def test_computes_once_for_each_object() -> None:
    """Not before it is read, and never again."""
    one, other = Circle(1), Circle(2)
    assert one.asked == []
    assert [one.diameter, other.diameter, one.diameter] == [2, 4, 2]
    assert (one.asked, vars(one)["diameter"]) == (["diameter"], 2)


def test_is_documented_as_the_method_was() -> None:
    """The class has what computes it, as with any property."""
    assert isinstance(Circle.diameter, lazy)
    assert Circle.diameter.__doc__ == "Twice the radius."
