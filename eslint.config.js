// What the JavaScript of this repository is checked for: `npm ci && npm run lint`.
import globals from "globals";

const rules = {
  "no-undef": "error",
  "no-unused-vars": ["error", { args: "all", argsIgnorePattern: "^_$" }],
  "no-shadow-restricted-names": "error",
  "no-redeclare": "error",
  "no-dupe-keys": "error",
  "no-dupe-args": "error",
  "no-unreachable": "error",
  "no-const-assign": "error",
  "no-import-assign": "error",
  "no-self-assign": "error",
  "no-sparse-arrays": "error",
  "no-unsafe-negation": "error",
  "no-loss-of-precision": "error",
  "use-isnan": "error",
  "valid-typeof": "error",
  "constructor-super": "error",
  "no-var": "error",
  "prefer-const": "error",
  "eqeqeq": "error",
  "max-lines": ["error", 350],
  "max-lines-per-function": ["error", 60],
};

export default [
  {
    files: ["explorer/**/js/**/*.js"],
    languageOptions: { ecmaVersion: 2023, sourceType: "module", globals: globals.browser },
    rules,
  },
  {
    files: ["tests/js/**/*.mjs", "eslint.config.js"],
    languageOptions: { ecmaVersion: 2023, sourceType: "module", globals: { ...globals.node, location: "writable" } },
    rules,
  },
  {  // bodies of functions that Gradio calls with these
    files: ["explorer/views/*.js"],
    languageOptions: {
      ecmaVersion: 2023,
      sourceType: "script",
      parserOptions: { ecmaFeatures: { globalReturn: true } },
      globals: { ...globals.browser, element: "readonly", trigger: "readonly", props: "readonly", watch: "readonly", ViTViewer: "readonly" },
    },
    rules,
  },
  {  // joined behind page.js, in one scope
    files: ["explorer/views/waiting.js", "explorer/views/upload.js", "explorer/views/compare.js"],
    languageOptions: { globals: { page: "readonly", named: "readonly", asked: "readonly", first: "readonly" } },
  },
];
