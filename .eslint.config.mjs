// The page's scripts are classic scripts that share one global, window.glassbox.
const browser = [
  'window', 'document', 'console', 'location', 'history', 'navigator', 'localStorage', 'sessionStorage', 'fetch', 'crypto',
  'URLSearchParams', 'URL', 'Blob', 'ResizeObserver', 'IntersectionObserver', 'MessageChannel', 'OffscreenCanvas', 'ImageData', 'Path2D', 'Option', 'Event', 'Node',
  'HTMLElement', 'NodeFilter', 'XMLSerializer', 'matchMedia', 'getComputedStyle', 'requestAnimationFrame', 'cancelAnimationFrame', 'performance', 'Performance',
  'setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'queueMicrotask', 'structuredClone', 'atob', 'btoa',
  'innerWidth', 'innerHeight', 'devicePixelRatio', 'scrollTo', 'addEventListener', 'getSelection', 'CSS', 'Intl',
];

export default [
  {
    files: ['assets/js/*.js'],
    languageOptions: {
      ecmaVersion: 2022,
      sourceType: 'script',
      globals: Object.fromEntries(browser.map((name) => [name, 'readonly'])),
    },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      'no-undef': 'error',
      'no-unused-vars': 'error',
      'no-redeclare': 'error',
      'no-var': 'error',
      'prefer-const': 'error',
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      strict: ['error', 'function'],
      'no-eval': 'error',
      'no-implied-eval': 'error',
      'no-unreachable': 'error',
      'no-dupe-keys': 'error',
      'no-fallthrough': 'error',
      'no-shadow-restricted-names': 'error',
      'no-restricted-properties': ['error', { property: 'innerHTML', message: 'Text is drawn with textContent.' }],
      'max-lines': ['error', 300],
      'max-lines-per-function': ['error', { max: 60, skipBlankLines: true, skipComments: true, IIFEs: false }],
    },
  },
];
