"""A lab as Mermaid text, which code hosts draw in Markdown. Pure."""

from collections.abc import Iterator
from itertools import count

from netemu.drawing.scene import METADATA, Scene
from netemu.interfaces import BRIDGE

_CLASSES = {
    "well": "fill:#f7f9fb,stroke:#b4c1cd,color:#1c2733",
    "warned": "fill:#fff6e0,stroke:#e0a100,color:#1c2733",
    "struck": "fill:#fde4df,stroke:#c8442b,color:#1c2733",
    "away": "fill:#e9edf1,stroke:#8898a8,color:#5b6b7b",
    "bridge": "fill:#e3eef7,stroke:#6a9cc4,color:#1c2733",
}


def mermaid(scene: Scene) -> str:
    """Return the scene as a flowchart."""
    return "\n".join(_lines(scene)) + "\n"


def _lines(scene: Scene) -> Iterator[str]:
    # A name may be a keyword of Mermaid ("end"), so guests are identified by numbers.
    number = count()
    yield "---"
    yield f'title: "{scene.name}: {scene.caption}"'
    yield "---"
    yield "flowchart LR"
    for place, node in enumerate(scene.nodes):
        label = f"{node.name}, failed" if node.failed else node.name
        yield f'  subgraph n{place}["{label}"]'
        yield f'    b{place}["{BRIDGE}<br/>{METADATA}"]:::bridge'
        for guest in node.guests:
            text = "<br/>".join(filter(None, (f"<b>{guest.name}</b>", guest.address, guest.says)))
            yield f'    b{place} ---|{guest.port}| g{next(number)}["{text}"]:::{guest.mood}'
        yield "  end"
    for name, style in _CLASSES.items():
        yield f"  classDef {name} {style}"
