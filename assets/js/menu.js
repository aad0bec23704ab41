/** A menu in a card: entries with an icon, a name and a note; up and down walk through it. */
(() => {
  'use strict';
  const { glassbox } = window;
  const { el, icon } = glassbox.dom;

  function onKey(event, node) {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!by) return;
    const entries = [...node.querySelectorAll('.menu-item')];
    const at = entries.indexOf(document.activeElement) + by;
    entries[(at + entries.length) % entries.length].focus();
    event.preventDefault();
    event.stopPropagation();
  }

  /**
   * @param {HTMLElement} node the card
   * @param {Array<{id: string, icon: string, text: string, note: string, action: () => void}>} entries
   * @param {() => void} close closes the card; called before an entry acts
   */
  function fillMenu(node, entries, close) {
    for (const { id, icon: image, text, note, action } of entries) {
      const button = el('button', 'menu-item');
      Object.assign(button, { type: 'button', id });
      button.append(icon(image), el('span', '', text), el('small', '', note));
      button.addEventListener('click', () => {
        close();
        action();
      });
      node.append(button);
    }
    node.firstChild.dataset.first = '';
    node.addEventListener('keydown', (event) => onKey(event, node));
  }

  glassbox.fillMenu = fillMenu;
})();
