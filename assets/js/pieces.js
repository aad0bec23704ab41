/** How a text splits into tokens, and what tokens say: asked of the server once, drawn piece by piece. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { dom } = glassbox;

  /** @type {Map<string, Promise<Array<[number, string]>>>} */ const known = new Map();

  /** What is typed: \n, \t and \\ stand for a newline, a tab and a backslash. */
  const ESCAPES = { '\\n': '\n', '\\t': '\t', '\\\\': '\\' };
  const unescape = (text) => text.replace(/\\[nt\\]/g, (pair) => ESCAPES[pair]);

  /** The same text as it would be typed. */
  const escape = (text) => text.replace(/\\/g, '\\\\').replace(/\n/g, '\\n').replace(/\t/g, '\\t');

  /** Asks once; after a failure the next call asks again. */
  function ask(args) {
    const key = JSON.stringify(args);
    if (!known.has(key)) {
      const asked = glassbox.rpc('resolve', args).then(({ tokens }) => tokens);
      known.set(key, asked);
      asked.catch(() => known.delete(key));
    }
    return known.get(key);
  }

  /** Tokens [id, text] that a text becomes. Rejects as every call of the server does. */
  const split = (text) => ask({ text });

  /** The same of token ids. */
  const named = (tokens) => ask({ tokens });

  /** Draws tokens as pieces with a gap between them; each tells its id. */
  function draw(node, tokens) {
    node.replaceChildren();
    for (const [id, text] of tokens) {
      const piece = dom.mark(dom.el('span', 'pc'), text);
      piece.title = `${glassbox.t('samp_token_id')} ${id}`;
      node.append(piece);
    }
    return node;
  }

  glassbox.pieces = { split, named, draw, escape, unescape };
})();
