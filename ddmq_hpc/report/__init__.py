"""What happened in a queue, as one page that opens from a file: `collecting` reads the journal once,
`failures`, `numbers` and `lanes` make figures of it, `charts` says how they are drawn, `page` writes the whole."""
