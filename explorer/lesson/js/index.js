// What a page gets: the global `ViTLesson`.

export { mount, DRAWINGS } from "./lesson.js";
export { readLesson, lessonHash } from "./address.js";
export { grade, total } from "./quiz.js";
