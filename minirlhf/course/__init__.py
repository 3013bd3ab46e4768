"""The course: assignments cut out of the library itself, checked by the student and graded by the teacher."""
