"""One self-contained page and a model card from plain records: `page.render_report`, `card.model_card`."""
